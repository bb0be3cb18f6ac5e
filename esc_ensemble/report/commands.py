"""The commands that make again what a report shows, as far as the files tell."""

from __future__ import annotations

import shlex
from typing import Any

from esc_ensemble.config import COMMANDS, BlendConfig
from esc_ensemble.errors import EscError
from esc_ensemble.report.evidence import Evidence, MemberEvidence
from esc_ensemble.settings import read_yaml

TRAINERS = ("train-a", "train-a-pro", "train-b", "baseline")


def model_name(member: MemberEvidence) -> str:
    """Gives the name of a member's network, empty where no config.yaml tells it."""
    if not member.config_text:
        return ""
    try:
        model = read_yaml(member.folder / "config.yaml").get("model")
    except EscError:
        return ""  # shown as it stands further down
    return str(model.get("name", "")) if isinstance(model, dict) else ""


def commands(evidence: Evidence) -> list[str]:
    """Gives the commands that make all this again, as far as what is on disk tells."""
    lines = []
    for member in evidence.members:
        model = model_name(member)
        command = next((name for name in TRAINERS if _knows(name, model)), "")
        if command and member.manifest:
            data = shlex.quote(str(member.manifest.get("dataset_path", "DIR")))
            run = shlex.quote(member.name)
            lines.append(f"esc-ens {command} --data {data} --config runs/{run}/config.yaml --run {run}")
    if evidence.kind == "blend":
        given = evidence.blend
        flags = []
        for name, info in BlendConfig.model_fields.items():
            value = given.get(name, info.default)
            if value == info.default or not isinstance(value, str | int | float):
                continue
            flag = f"--{name.replace('_', '-')}"
            flags.append(flag if value is True else f"{flag} {shlex.quote(str(value))}")
        runs = " ".join(shlex.quote(member.name) for member in evidence.members)
        lines.append(" ".join(["esc-ens blend", runs, *flags, "--out", shlex.quote(evidence.folder.name)]))
    lines.append(f"esc-ens report {shlex.quote(evidence.folder.name)}")
    return lines


def _knows(command: str, model: str) -> bool:
    kind: Any = COMMANDS[command].model_fields["model"].annotation
    return bool(model) and model in getattr(kind.model_fields["name"].annotation, "__args__", ())
