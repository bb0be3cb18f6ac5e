"""Commands that bring a model, or the training of one, to Kaggle. Heavy imports stand inside the commands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from esc_ensemble.display import print_table
from esc_ensemble.flags import Flag, Json

Several = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=True)]


def build(
    model: str | None = None,
    /,
    *,
    user: str = "",
    title: str = "",
    competition: Several = (),
    dataset: Several = (),
    dataset_title: str = "",
    licence: str = "",
    no_model: Flag = False,
    wheels: Flag = False,
    public: Annotated[bool, Parameter(negative="--private")] = False,
    gpu: Flag = False,
    machine_shape: str = "",
    internet: Flag = False,
    time_budget: float | None = None,
    esc10: Flag = False,
    data_flags: str = "",
    exports: Path = Path("exports"),
    out: Path = Path("kaggle"),
    as_json: Json = False,
) -> None:
    """Make the folder to upload: a kernel that runs offline, the model's data set, and the metadata of both.

    The kernel finds its inputs itself, predicts with the model, and trains one where none is attached (--no-model).

    Args:
        model: Name of an export (its .onnx and .torchscript.pt are taken), or one of its files.
        user: Your name on Kaggle, as in the address of your profile; $KAGGLE_USERNAME where not given.
        title: Title of the kernel; follows from the model's name where not given.
        competition: Competitions to attach, by the last part of their address.
        dataset: Other data sets to attach, as OWNER/SLUG.
        dataset_title: Title of the model's data set; the kernel's and "model" where not given.
        licence: Licence of the model's data set, by Kaggle's names; the training data's, if known, where not given.
        no_model: Attach no model: the kernel trains on attached data.
        wheels: Put onnxruntime's wheel beside the model, should Kaggle's image lack it.
        public: Let everybody see kernel and data set.
        gpu: Run on a GPU.
        machine_shape: Which GPU, such as NvidiaTeslaT4Highmem; NvidiaTeslaT4 where not given.
        internet: Let the kernel use the internet, which it does not need.
        time_budget: Seconds that the kernel may take; eight hours where not given.
        esc10: Train on ESC-50's ten classes marked esc10 alone.
        data_flags: How the kernel reads its training data, as flags of data info: "--folders classes --n-folds 5".
        exports: Folder of all exports.
        out: Folder to make.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.errors import ConfigError  # noqa: PLC0415
    from esc_ensemble.kaggle.build import BuildOptions, build_folder  # noqa: PLC0415

    if (model is None) != no_model:
        raise ConfigError(
            "Name an export, esc-ens kaggle build NAME, or have --no-model and a kernel that trains: one of them."
        )
    constants: dict[str, Any] = {"TIME_BUDGET": time_budget} if time_budget is not None else {}
    constants |= {"ESC10": True} if esc10 else {}
    constants |= {"DATA_FLAGS": data_flags} if data_flags else {}
    options = BuildOptions(
        owner=user or os.environ.get("KAGGLE_USERNAME", ""),
        title=title,
        dataset_title=dataset_title,
        licence=licence,
        private=not public,
        gpu=gpu,
        machine_shape=machine_shape,
        internet=internet,
        competitions=competition,
        datasets=dataset,
        wheels=wheels,
        constants=constants,
    )
    made = build_folder(model, out, options, exports)
    if as_json:
        print(json.dumps(made.to_json(), ensure_ascii=False))
        return
    print_table(str(out), *made.table())
    for note in made.notes:
        print(f"Note: {note}.")
    print(f"Upload it and let it run: esc-ens kaggle push {out}")


def push(
    folder: Path = Path("kaggle"),
    /,
    *,
    part: Literal["all", "dataset", "kernel"] = "all",
    message: str = "",
    as_json: Json = False,
) -> None:
    """Upload the model's data set and push the kernel, which then runs, through Kaggle's official client.

    Args:
        folder: Made by kaggle build.
        part: What of it to upload.
        message: Note of the data set's new version, where there is one already.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.kaggle.client import push as push_folder  # noqa: PLC0415

    pushed = push_folder(folder, part, message)
    if as_json:
        print(json.dumps(pushed.to_json(), ensure_ascii=False))
        return
    for answer in pushed.answers:
        print(answer)
    print(f"See how it does: esc-ens kaggle status {folder}")


def status(folder: Path = Path("kaggle"), /, *, as_json: Json = False) -> None:
    """Say whether the kernel is running, done or failed.

    Args:
        folder: Made by kaggle build.
        as_json: Print the result as JSON on stdout.
    """
    from esc_ensemble.kaggle.client import status as ask  # noqa: PLC0415

    told = ask(folder)
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    print(f"{told['kernel']}: {told['status']}")
    if "failure" in told:
        print(told["failure"])
