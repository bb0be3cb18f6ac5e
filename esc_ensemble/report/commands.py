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
        settings = evidence.blend.get("settings")
        flags = _flags(settings) if isinstance(settings, dict) else []
        runs = " ".join(shlex.quote(member.name) for member in evidence.members)
        lines.append(" ".join(["esc-ens blend", runs, *flags, "--out", shlex.quote(evidence.folder.name)]))
    lines.append(f"esc-ens report {shlex.quote(evidence.folder.name)}")
    return lines


def _flags(settings: dict[str, Any]) -> list[str]:
    """The settings of a blend that are not as by default, as flags."""
    defaults = BlendConfig().model_dump(mode="json")
    flags: list[str] = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if value == defaults.get(name):
            continue
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{name.replace('_', '-')}")
        elif isinstance(value, list):
            flags += [f"{flag}={item}" for item in value]
        elif isinstance(value, dict):
            flags += [
                f"{flag}.{shlex.quote(key)}={','.join(map(str, items))}"
                for key, items in value.items()
                if isinstance(items, list)
            ]
        else:
            flags.append(f"{flag} {shlex.quote(str(value))}")
    return flags


def _knows(command: str, model: str) -> bool:
    kind: Any = COMMANDS[command].model_fields["model"].annotation
    return bool(model) and model in getattr(kind.model_fields["name"].annotation, "__args__", ())
