"""Pushes an upload folder through Kaggle's official client, as a process of its own, and says what went wrong with it.

The client ends with 0 after some of its failures ("Kernel push error: ..."), and prints a page of advice twice where it
has no credentials, so its output is read.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from esc_ensemble.errors import ConfigError, EscError, WorkError
from esc_ensemble.kaggle.build import DATASET_FOLDER, KERNEL_FOLDER
from esc_ensemble.kaggle.metadata import DATASET_METADATA, KERNEL_METADATA
from esc_ensemble.progress import say

Part = Literal["all", "dataset", "kernel"]

INSTALL = 'pip install "esc_ensemble[kaggle]"'
CREDENTIALS = (
    "Log in once with `kaggle auth login`, or make a token at https://www.kaggle.com/settings/api and set "
    "KAGGLE_API_TOKEN to it, or save it as ~/.kaggle/access_token. An older key goes into ~/.kaggle/kaggle.json, or "
    "into KAGGLE_USERNAME and KAGGLE_KEY."
)
READY_SECONDS, ASK_SECONDS = 600.0, 10.0
NO_NETWORK = re.compile(r"ConnectionError|NameResolutionError|ProxyError|ConnectTimeout|Max retries exceeded")
REFUSED = re.compile(r"\b401\b|Unauthorized|Authentication required|Invalid credentials", re.IGNORECASE)
FAILED = re.compile(
    r"^(?:Kernel push|Dataset creation|Dataset version creation) error: *(.*)", re.MULTILINE | re.DOTALL
)
LEFT_OUT = re.compile(r"^The following are not valid (\w+ sources).*?: (.*)$", re.MULTILINE)


class ClientError(WorkError):
    """The client, or Kaggle, refused a command."""


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, and what the client said to it."""

    dataset: str
    """Its id; empty where none was uploaded."""
    kernel: str
    """Its id; empty where none was pushed."""
    answers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Gives the same as plain values."""
        return {"dataset": self.dataset, "kernel": self.kernel, "answers": list(self.answers)}


def push(folder: Path, part: Part = "all", message: str = "") -> Pushed:
    """Uploads the model's data set, waits until Kaggle has it, and pushes the kernel, which then runs.

    A data set that is there already gets a new version.

    Args:
        folder: made by `esc-ens kaggle build`.
        part: what of it.
        message: note of a new version.

    Raises:
        ConfigError: the folder is none, the client is not installed, or it has no credentials.
        WorkError: Kaggle cannot be reached, or refuses it.
    """
    kernel = read_metadata(folder, KERNEL_FOLDER, KERNEL_METADATA)
    has_dataset = (folder / DATASET_FOLDER / DATASET_METADATA).is_file()
    dataset = read_metadata(folder, DATASET_FOLDER, DATASET_METADATA) if has_dataset else None
    if part == "dataset" and dataset is None:
        raise ConfigError(f"{folder} has no data set: it was built with --no-model.")
    answers = []
    if dataset is not None and part != "kernel":
        answers.append(_push_dataset(folder / DATASET_FOLDER, dataset["id"], message, private=kernel["is_private"]))
    if part != "dataset":
        say(f"Pushing the kernel {kernel['id']}")
        answer = run_client(["kernels", "push", "-p", str(folder / KERNEL_FOLDER)])
        left_out = LEFT_OUT.findall(answer)
        if left_out:
            told = "; ".join(f"{what}: {which}" for what, which in left_out)
            raise WorkError(
                f"The kernel was pushed, but Kaggle does not know some of what it is to read ({told}). Correct "
                f"{folder / KERNEL_FOLDER / KERNEL_METADATA} or build again, and push again with --part kernel."
            )
        answers.append(answer)
    return Pushed(
        dataset["id"] if dataset is not None and part != "kernel" else "",
        kernel["id"] if part != "dataset" else "",
        tuple(answers),
    )


def status(folder: Path) -> dict[str, str]:
    """Gives how the kernel of an upload folder is doing.

    Raises:
        ConfigError: the folder is none, the client is not installed, or it has no credentials.
        WorkError: Kaggle cannot be reached, or refuses it.
    """
    kernel = read_metadata(folder, KERNEL_FOLDER, KERNEL_METADATA)["id"]
    answer = run_client(["kernels", "status", kernel])
    found = re.search(r'has status "(?:KernelWorkerStatus\.)?(\w+)"', answer)
    failure = re.search(r'^Failure message: "(.*)"$', answer, re.MULTILINE)
    told = {"kernel": kernel, "status": found[1].lower() if found else "unknown", "answer": answer}
    return told | ({"failure": failure[1]} if failure else {})


def read_metadata(folder: Path, part: str, name: str) -> dict[str, Any]:
    """Reads a metadata file of an upload folder.

    Raises:
        ConfigError: there is none, or it is damaged.
    """
    path = folder / part / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["id"], str):
            raise TypeError("its id is no text")
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Make the folder: esc-ens kaggle build MODEL --user NAME") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({error}). Make the folder again: esc-ens kaggle build") from error
    return content | {"is_private": content.get("is_private", True)}


def run_client(arguments: Sequence[str]) -> str:
    """Runs a command of the official client and gives what it printed.

    Raises:
        ConfigError: it is not installed, does not start, or has no credentials.
        WorkError: Kaggle cannot be reached.
        ClientError: it or Kaggle refused the command.
    """
    done = subprocess.run(
        [*_client(), *arguments], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    output = f"{done.stdout}\n{done.stderr}".strip()
    if done.returncode == 0 and not FAILED.search(output):
        return output
    raise _explain(output, arguments)


def _client() -> list[str]:
    """Gives the command that starts the client, that of this installation first."""
    beside = Path(sys.executable).with_name("kaggle")
    found = str(beside) if beside.is_file() else shutil.which("kaggle")
    try:
        version("kaggle")
    except PackageNotFoundError as error:
        if not found:
            raise ConfigError(f"Kaggle's client is not installed. Install it: {INSTALL}") from error
    return [found] if found else [sys.executable, "-m", "kaggle"]


def _explain(output: str, arguments: Sequence[str]) -> EscError:
    """Gives the error that stands behind what the client printed."""
    command = f"kaggle {' '.join(arguments[:2])}"
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", output)
    if missing:
        name = missing[1].split(".")[0]
        return ConfigError(f"Kaggle's client does not start: it lacks {name}. Install it: pip install {name}")
    if NO_NETWORK.search(output):
        return WorkError(f"Kaggle cannot be reached ({command}). Look after the network, and type the same again.")
    if REFUSED.search(output):
        return ConfigError(f"Kaggle's client has no valid credentials ({command}). {CREDENTIALS}")
    told = FAILED.search(output)
    reason = told[1].strip() if told else (output.splitlines() or ["it printed nothing"])[-1]
    return ClientError(f"{command} failed: {reason}")


def _push_dataset(folder: Path, dataset: str, message: str, *, private: bool) -> str:
    megabytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
    say(f"Uploading the data set {dataset}, {megabytes:.1f} MB")
    where = ["-p", str(folder), "-r", "zip", "-q"]
    if _dataset_status(dataset):
        answer = run_client(["datasets", "version", *where, "-m", message or "New version"])
    else:
        answer = run_client(["datasets", "create", *where, *([] if private else ["--public"])])
    _wait_for(dataset)
    return answer


def _dataset_status(dataset: str) -> str:
    """Gives the state of a data set on Kaggle, empty where there is none."""
    try:
        return run_client(["datasets", "status", dataset]).strip().lower()
    except ClientError:  # Kaggle says 403 of a data set that is not there, or not ours
        return ""


def _wait_for(dataset: str) -> None:
    """Waits until Kaggle has unpacked a data set: a kernel that starts before finds it empty."""
    end = time.monotonic() + READY_SECONDS
    while _dataset_status(dataset).splitlines()[-1:] != ["ready"]:
        if time.monotonic() > end:
            raise WorkError(
                f"Kaggle has not made the data set {dataset} ready in {READY_SECONDS:.0f} s. See its page, then push "
                "the kernel: esc-ens kaggle push FOLDER --part kernel"
            )
        time.sleep(ASK_SECONDS)
