"""Data sets of the Hugging Face hub, `hf:OWNER/NAME`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from esc_ensemble.errors import DataError

PREFIX = "hf:"
PATTERNS = ("*.parquet", "**/*.parquet", "metadata.csv", "metadata.jsonl", "**/metadata.csv", "**/metadata.jsonl")
"""Files fetched of a data set that is stored in Parquet; all are where it has none."""


def fetch_snapshot(name: str) -> Path:
    """Returns the folder of a data set of the hub, downloaded where it is not in the hub's cache yet.

    With HF_HUB_OFFLINE=1 only the cache is looked at. Nothing of a data set is run.

    Args:
        name: `hf:OWNER/NAME`, or `hf:OWNER/NAME@REVISION`.

    Raises:
        DataError: there is no such data set, or it cannot be reached.
    """
    repository, _, revision = name.removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise DataError(f"{name} names no data set of the Hugging Face hub: write it as hf:ashraq/esc50.")
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - takes a while to load
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise DataError(f"{name} needs huggingface_hub: pip install huggingface_hub.") from error
    fetch = partial(snapshot_download, repository, repo_type="dataset", revision=revision or None)
    try:
        folder = Path(fetch(allow_patterns=list(PATTERNS)))
        if not any(folder.rglob("*.parquet")):
            folder = Path(fetch())
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{name} cannot be fetched: {reason} Check the name and the connection; on a machine without internet, "
            "download its Parquet files elsewhere and give their folder."
        ) from error
    return folder
