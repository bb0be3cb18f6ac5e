"""The command line: one short function a command, no logic. Heavy imports stand inside the commands."""

from __future__ import annotations

from collections.abc import Sequence

import cyclopts
from cyclopts import App
from pydantic import ValidationError

from esc_ensemble import __version__
from esc_ensemble.cli import blending, datasets, kaggling, pretraining, reporting, start, training
from esc_ensemble.config import COMMANDS, TrainAConfig
from esc_ensemble.errors import ConfigError, list_problems
from esc_ensemble.settings import explain

app = App(
    name="esc-ens",
    version=__version__,
    help="Train, blend and ship ensembles for environmental sound classification.",
    help_epilogue="Commands with a result take --json, for machines, on stdout; --debug shows tracebacks.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # cyclopts would leave without a word; `main` says what to do next
)
app.command(start.quickstart)
app.command(start.config)

data_app = App(name="data", help="Look at, download or make a data set.")
data_app.command(datasets.info)
data_app.command(datasets.report)
data_app.command(datasets.folds)
data_app.command(datasets.fetch)
data_app.command(datasets.synth)
app.command(data_app)

app.command(training.train_a)
app.command(training.train_a_pro)
app.command(training.train_b)
app.command(training.baseline)
app.command(training.compare_runs, name="compare")

pretrain_app = App(name="pretrain", help="Train a network on other data first, without the recordings of your own.")
pretrain_app.command(pretraining.train_a)
pretrain_app.command(pretraining.train_a_pro)
pretrain_app.command(pretraining.train_b)
pretrain_app.command(pretraining.wav2vec2)
app.command(pretrain_app)

app.command(blending.blend)
app.command(blending.predict)
app.command(blending.export)
app.command(blending.infer)
app.command(blending.serve)
app.command(reporting.report)

kaggle_app = App(name="kaggle", help="Bring a model, or the training of one, to Kaggle, to run without internet.")
kaggle_app.command(kaggling.build)
kaggle_app.command(kaggling.push)
kaggle_app.command(kaggling.status)
app.command(kaggle_app)


def run(tokens: Sequence[str]) -> None:
    """Runs a command.

    Raises:
        ConfigError: the flags cannot be used.
        EscError: what the command raises.
    """
    try:
        app(tokens, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        raise ConfigError(_usage_message(error)) from error


def _usage_message(error: cyclopts.CycloptsError) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        title = cause.title.strip("]").rpartition("[")[2]  # the name of the settings, or `Optional[name]`
        kind = next((kind for kind in COMMANDS.values() if kind.__name__ == title), TrainAConfig)
        return list_problems("The flags cannot be used:", explain(kind, cause))
    return f"{error} (esc-ens COMMAND --help lists what there is)"
