"""What Kaggle wants to know of a kernel and of a data set, checked by its rules before anything is uploaded.

The rules are those of the official client's own checks (kaggle 2.2) and of its documentation, docs/kernels_metadata.md
and docs/datasets_metadata.md. What the two say differently of the length of slugs the stricter one decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from esc_ensemble.errors import ConfigError, did_you_mean, list_problems

KERNEL_METADATA, DATASET_METADATA = "kernel-metadata.json", "dataset-metadata.json"
TITLE_MOST = 50
KERNEL_TITLE_LEAST, KERNEL_SLUG_LEAST = 5, 5
DATASET_TITLE_LEAST, DATASET_SLUG_LEAST = 6, 6
SUBTITLE = (20, 80)
OWNER = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*")
SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
DEFAULT_GPU = "NvidiaTeslaT4"
LICENCES = (
    *("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0"),
    *("CC-BY-ND-4.0", "CC-BY-NC-ND-4.0", "CC-BY-3.0-IGO", "CC-BY-NC-SA-3.0-IGO", "GPL-2.0", "GPL-3.0", "LGPL-3.0"),
    *("AGPL-3.0", "FDL-1.3", "apache-2.0", "ODbL-1.0", "DbCL-1.0", "ODC-BY-1.0", "PDDL", "CDLA-Permissive-1.0"),
    *("CDLA-Sharing-1.0", "US-Government-Works", "EU-ODP-Legal-Notice", "copyright-authors", "other", "unknown"),
)
"""Names that Kaggle takes."""
LICENCE_OF_DATA = {
    "ESC-10": ("CC-BY-3.0", "ESC-10 (Piczak 2015) is licensed CC BY 3.0."),
    "ESC-50": (
        "CC-BY-NC-4.0",
        "ESC-50 (Piczak 2015) is licensed CC BY-NC 3.0, of which Kaggle lists version 4.0 alone: not for commercial "
        "use.",
    ),
    "UrbanSound8K": (
        "CC-BY-NC-4.0",
        "UrbanSound8K (Salamon 2014) is licensed CC BY-NC 3.0, of which Kaggle lists version 4.0 alone: not for "
        "commercial use.",
    ),
}
"""Of the data sets that are known here: the nearest licence that Kaggle has, and what holds exactly."""


@dataclass(frozen=True, kw_only=True)
class KernelMetadata:
    """`kernel-metadata.json` of a script."""

    owner: str
    title: str
    code_file: str
    private: bool = True
    gpu: bool = False
    machine_shape: str = ""
    internet: bool = False
    datasets: tuple[str, ...] = ()
    """owner/slug."""
    competitions: tuple[str, ...] = ()
    """Slugs."""
    kernels: tuple[str, ...] = ()
    """owner/slug."""
    models: tuple[str, ...] = ()
    """owner/model/framework/variation/version."""

    @property
    def slug(self) -> str:
        """The kernel's name in addresses."""
        return slugify(self.title)

    def to_json(self) -> dict[str, Any]:
        """Gives the file's content; every switch is written, since client and documentation disagree on defaults."""
        shape = {"machine_shape": self.machine_shape} if self.machine_shape else {}
        return {
            "id": f"{self.owner}/{self.slug}",
            "title": self.title,
            "code_file": self.code_file,
            "language": "python",
            "kernel_type": "script",
            "is_private": self.private,
            "enable_gpu": self.gpu,
            "enable_tpu": False,
            "enable_internet": self.internet,
            **shape,
            "dataset_sources": list(self.datasets),
            "competition_sources": list(self.competitions),
            "kernel_sources": list(self.kernels),
            "model_sources": list(self.models),
        }

    def problems(self) -> list[str]:
        """Lists what Kaggle would refuse."""
        found = [
            *_owner_problems(self.owner),
            *_title_problems("title", self.title, KERNEL_TITLE_LEAST, KERNEL_SLUG_LEAST),
            *_source_problems("--dataset", self.datasets, parts=(2, 3), form="OWNER/SLUG"),
            *_source_problems("--competition", self.competitions, parts=(1, 1), form="SLUG"),
            *_source_problems("--kernel", self.kernels, parts=(2, 3), form="OWNER/SLUG"),
            *_source_problems("--model", self.models, parts=(5, 5), form="OWNER/MODEL/FRAMEWORK/VARIATION/VERSION"),
        ]
        if any(not model.rpartition("/")[2].isdigit() for model in self.models):
            found.append("--model must end with the number of a version")
        if self.machine_shape and not self.gpu:
            found.append(f"--machine-shape {self.machine_shape} is a GPU: pass --gpu too")
        return found


@dataclass(frozen=True, kw_only=True)
class DatasetMetadata:
    """`dataset-metadata.json`."""

    owner: str
    title: str
    licence: str
    subtitle: str = ""
    description: str = ""

    @property
    def slug(self) -> str:
        """The data set's name in addresses."""
        return slugify(self.title)

    @property
    def id(self) -> str:
        """owner/slug."""
        return f"{self.owner}/{self.slug}"

    def to_json(self) -> dict[str, Any]:
        """Gives the file's content."""
        more = {"subtitle": self.subtitle, "description": self.description}
        return {
            "title": self.title,
            "id": self.id,
            "licenses": [{"name": self.licence}],
            **{name: text for name, text in more.items() if text},
        }

    def problems(self) -> list[str]:
        """Lists what Kaggle would refuse."""
        found = [
            *_owner_problems(self.owner),
            *_title_problems("data set's title", self.title, DATASET_TITLE_LEAST, DATASET_SLUG_LEAST),
        ]
        if self.licence not in LICENCES:
            found.append(f'licence "{self.licence}" is none that Kaggle lists.{did_you_mean(self.licence, LICENCES)}')
        if self.subtitle and not SUBTITLE[0] <= len(self.subtitle) <= SUBTITLE[1]:
            found.append(
                f"the subtitle must have {SUBTITLE[0]} to {SUBTITLE[1]} characters, it has {len(self.subtitle)}"
            )
        return found


def check_all(kernel: KernelMetadata, dataset: DatasetMetadata | None) -> None:
    """Refuses what Kaggle would refuse, all of it in one message.

    Raises:
        ConfigError: something breaks a rule.
    """
    problems = list(dict.fromkeys([*kernel.problems(), *(dataset.problems() if dataset else [])]))
    if problems:
        raise ConfigError(list_problems("Kaggle would refuse this:", problems))


def slugify(title: str) -> str:
    """Gives the slug that Kaggle makes of a title: lower case, everything else than letters and digits a hyphen."""
    joined = re.sub(r"(?<=\d),(?=\d)", "", title.lower())  # 1,000 is one number
    return re.sub(r"[^a-z0-9]+", "-", joined).strip("-")


def choose_licence(licence: str, dataset: str) -> tuple[str, str]:
    """Gives the licence of a model's data set on Kaggle, and a sentence on it.

    Args:
        licence: what was asked for; empty follows from the training data.
        dataset: name of the training data, empty where it is not known.

    Raises:
        ConfigError: neither says it.
    """
    name, note = LICENCE_OF_DATA.get(dataset, ("", ""))
    if licence:
        return licence, note
    if not name:
        raise ConfigError(
            f"Kaggle wants a licence for the model's data set, and that of the training data "
            f"({dataset or 'not known'}) is not known here. Say it: --licence {' or '.join(LICENCES[:4])} "
            "(--licence other where none fits; docs/datasets_metadata.md of Kaggle's client lists all)."
        )
    return name, note


def _owner_problems(owner: str) -> list[str]:
    if OWNER.fullmatch(owner):
        return []
    return [f'user "{owner}" is no name on Kaggle: take it from the address of your profile, in lower case (--user)']


def _title_problems(what: str, title: str, least: int, slug_least: int) -> list[str]:
    slug = slugify(title)
    found = []
    if not least <= len(title) <= TITLE_MOST:
        found.append(f'{what} "{title}" must have {least} to {TITLE_MOST} characters, it has {len(title)}')
    if not title.isascii() or not title.isprintable() or "&" in title:
        found.append(f'{what} "{title}" holds signs that Kaggle spells out in the slug: write plain letters and digits')
    elif not slug_least <= len(slug) <= TITLE_MOST:
        found.append(f'the slug "{slug}" of {what} "{title}" must have {slug_least} to {TITLE_MOST} characters')
    return found


def _source_problems(flag: str, sources: Sequence[str], *, parts: tuple[int, int], form: str) -> Iterable[str]:
    for source in sources:
        pieces = source.split("/")
        if not parts[0] <= len(pieces) <= parts[1] or not all(re.fullmatch(r"[\w.-]+", piece) for piece in pieces):
            yield f'{flag} "{source}" must have the form {form}'
        elif form == "OWNER/SLUG" and not (OWNER.fullmatch(pieces[0].lower()) and SLUG.fullmatch(pieces[1].lower())):
            yield f'{flag} "{source}" must have the form {form}, as in the address of its page'
    for source in {source for source in sources if sources.count(source) > 1}:
        yield f'{flag} "{source}" is named twice'
