from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from esc_ensemble.compare import plan
from esc_ensemble.config import COMMANDS, TrainAConfig, TrainAProConfig
from esc_ensemble.errors import ConfigError
from esc_ensemble.settings import Settings, build, check, config_hash, merge, read_yaml, to_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
COMPARISONS = sorted(CONFIGS.glob("compare-*.yaml"))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_files_in_configs_are_the_defaults(command: str) -> None:
    text = (CONFIGS / f"{command}.yaml").read_text(encoding="utf-8")
    assert text == to_yaml(COMMANDS[command](), comments=True), f"esc-ens config {command} > configs/{command}.yaml"


@pytest.mark.parametrize("path", sorted({*CONFIGS.glob("*.yaml")} - {*COMPARISONS}), ids=lambda path: path.stem)
def test_every_file_in_configs_can_be_used(path: Path) -> None:
    kind = COMMANDS[max((command for command in COMMANDS if path.stem.startswith(command)), key=len)]
    build(kind, read_yaml(path), str(path))


@pytest.mark.parametrize("path", COMPARISONS, ids=lambda path: path.stem)
def test_every_comparison_in_configs_can_be_run(path: Path) -> None:
    command = re.search(r"esc-ens compare (\S+) --config (\S+)", path.read_text(encoding="utf-8"))
    assert command
    assert CONFIGS.parent / command[1] == path
    changes = read_yaml(path)
    base = read_yaml(CONFIGS.parent / command[2])
    assert list(plan(TrainAConfig, base, changes, [0])) == ["base", *changes]


@pytest.mark.parametrize("kind", list(COMMANDS.values()))
def test_every_setting_is_documented(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        assert field.description, name
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            test_every_setting_is_documented(field.annotation)


def test_a_group_named_in_part_keeps_what_its_command_sets_in_it() -> None:
    found = build(TrainAProConfig, {"frontend": {"hop": 320}, "train": {"epochs": 3}}, "it")
    assert (found.frontend.hop, found.frontend.n_mels) == (320, TrainAProConfig().frontend.n_mels)
    assert (found.train.epochs, found.train.channels_last) == (3, TrainAProConfig().train.channels_last)
    assert build(TrainAProConfig, {"frontend": {"n_mels": 80}}, "it").frontend.n_mels == 80
    assert build(TrainAConfig, {"frontend": {"hop": 320}}, "it").frontend.n_mels == TrainAConfig().frontend.n_mels


@pytest.mark.parametrize("kind", list(COMMANDS.values()))
def test_the_defaults_of_a_group_are_those_of_its_class_which_the_command_line_shows(kind: type[Settings]) -> None:
    for field in kind.model_fields.values():
        if isinstance(field.default, Settings):
            assert field.annotation is type(field.default)
            assert field.default == type(field.default)()
            test_the_defaults_of_a_group_are_those_of_its_class_which_the_command_line_shows(type(field.default))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": {"epochs": {"a": 1}}}, r"train\.epochs: must be a whole number \(found {'a': 1}\)"),
        ({"train": {"epochs": True}}, r"train\.epochs: must not be true or false \(found True\)"),
        ({"train": {"epochs": 1.5}}, r"train\.epochs: must be a whole number \(found 1\.5\)"),
        ({"train": {"learning_rate": False}}, r"train\.learning_rate: must not be true or false"),
        ({"train": {"learning_rate": "fast"}}, r"train\.learning_rate: must be a number \(found 'fast'\)"),
        ({"train": {"swa": 1.0}}, r"train\.swa: must be below 1 \(found 1\.0\)"),
        ({"train": {"optimizer": "adam"}}, r"train\.optimizer: must be 'adamw' or 'sgd' \(found 'adam'\)"),
        ({"train": {"checkpointing": 3}}, r"train\.checkpointing: must be true or false \(found 3\)"),
        ({"shift_seconds": [0.0, True]}, "shift_seconds: must not be true or false"),
        ({"shift_seconds": 0.0}, "shift_seconds: must be a list"),
        ({"augment": {"noise_colour": [0.0, 1.0, 2.0]}}, "noise_colour: must have at most 2 values"),
        ({"augment": {"noise_colour": [0.0]}}, r"noise_colour\.1: is missing"),
        ({"train": 5}, r"train: must be a group of settings \(found 5\)"),
        ({"epochs": 5}, 'unknown key "epochs". Did you mean "train.epochs"'),
        ({"frontend": {"gain": 1.0}}, 'unknown key "frontend.gain". Did you mean "frontend.pcen.gain"'),
    ],
)
def test_a_wrong_value_is_told_by_its_name_in_plain_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainAConfig, values, "it")


def test_a_group_without_content_keeps_its_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train:\n  # epochs: 3\nseed: 1\n")
    assert build(TrainAConfig, read_yaml(tmp_path / "c.yaml"), "c") == TrainAConfig(seed=1)
    assert merge({"train": {"epochs": 3}}, {"train": None}) == {"train": {"epochs": 3}}
    assert merge({"train": None}, {"train": {"epochs": 3}}) == {"train": {"epochs": 3}}


# --- there and back


def bounded(metadata: list[Any], kind: type) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for item in metadata:
        for name, key in (("ge", "min_value"), ("gt", "min_value"), ("le", "max_value"), ("lt", "max_value")):
            value = getattr(item, name, None)
            if value is not None:
                limits[key] = kind(value)
                if kind is float and name in ("gt", "lt"):
                    limits["exclude_min" if name == "gt" else "exclude_max"] = True
    return limits


def values_of(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """What a field may hold, each value right for itself."""
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    if get_origin(annotation) is tuple:
        inner, *more = get_args(annotation)
        if more != [...]:
            return st.tuples(*(values_of(item, []) for item in (inner, *more)))
        kind, limits = getattr(inner, "__origin__", inner), getattr(inner, "__metadata__", ())
        limits = [part for item in limits for part in getattr(item, "metadata", [item])]
        return st.lists(values_of(kind if limits else inner, limits), max_size=4).map(tuple)
    if get_origin(annotation) is dict:
        key, value = get_args(annotation)
        return st.dictionaries(values_of(key, []), values_of(value, []), max_size=3)
    if issubclass(annotation, Settings):
        return settings_of(annotation)
    numbers: dict[type, Any] = {
        bool: st.booleans,
        int: lambda: st.integers(**{"min_value": 0, "max_value": 10**6} | bounded(metadata, int)),
        float: lambda: st.floats(allow_nan=False, allow_infinity=False, **bounded(metadata, float)),
        str: lambda: st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20),
    }
    strategy: st.SearchStrategy[Any] = numbers[annotation]()
    return strategy


def settings_of(kind: type[Settings]) -> st.SearchStrategy[Settings]:
    fields = {name: values_of(field.annotation, field.metadata) for name, field in kind.model_fields.items()}
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


@pytest.mark.parametrize("kind", list(COMMANDS.values()))
@given(drawn=st.data(), comments=st.booleans())
@settings(max_examples=60, deadline=None)
def test_settings_survive_yaml(kind: type[Settings], drawn: st.DataObject, comments: bool) -> None:
    given_settings = drawn.draw(settings_of(kind))
    back = kind.model_validate(yaml.safe_load(to_yaml(given_settings, comments=comments)))
    assert back == given_settings
    assert config_hash(back) == config_hash(given_settings)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from([*TrainAConfig.model_fields, "epochs", "widths"]) | st.text(max_size=8)


@given(st.dictionaries(KEYS, ANYTHING | st.dictionaries(KEYS, ANYTHING, max_size=3), max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_is_given_becomes_settings_or_a_config_error(values: dict[str, Any]) -> None:
    try:
        found = build(TrainAConfig, values, "it")
    except ConfigError as error:
        assert str(error).startswith("it cannot be used:")
    else:
        assert isinstance(found, TrainAConfig)


@pytest.mark.parametrize("values", [{1: 2}, {None: {}}, {"train": {3: 4}}])
def test_keys_that_are_no_text_are_refused(values: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError):
        build(TrainAConfig, values, "it")


# --- refusals


def test_all_problems_are_named_at_once_by_their_dotted_keys() -> None:
    values = {"sed": 1, "train": {"epoch": 3, "batch_size": 0}, "frontend": {"pcen": {"gian": 1.0, "power": "x"}}}
    with pytest.raises(ConfigError) as caught:
        build(TrainAConfig, values, "some.yaml")
    message = str(caught.value)
    for part in (
        'unknown key "sed". Did you mean "seed"?',
        'unknown key "train.epoch". Did you mean "train.epochs"?',
        "train.batch_size: ",
        "(found 0)",
        'unknown key "frontend.pcen.gian". Did you mean "frontend.pcen.gain"?',
        "frontend.pcen.power: ",
        "(found 'x')",
    ):
        assert part in message, part


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"shift_seconds": [0.1]}, "must hold 0.0"),
        ({"shift_seconds": [0.0, 0.0]}, "no shift twice"),
        ({"frontend": {"f_max": 9000.0}, "data": {"sample_rate": 16000}}, "above half of sample_rate"),
        ({"frontend": {"window": 600, "n_fft": 512}}, "frontend: window 600"),
        ({"frontend": {"f_min": 500.0, "f_max": 400.0}}, "frontend: f_min"),
        ({"frontend": {"channels": []}}, "frontend: channels"),
        ({"frontend": {"channels": ["pcen", "pcen"]}}, "frontend: channels"),
        ({"data": {"clip_seconds": 0.01}}, r"too short for one frame of frontend.n_fft 1024: set it to 0\.032 or more"),
        ({"data": {"window_seconds": 0.01}}, r"data.window_seconds 0.01 .*set it to 0\.032 or more"),
        ({"data": {"clip_seconds": 0.00001}}, "no sample"),
        ({"data": {"selection_fraction": 0.1, "selection_fold": 2}}, "two ways to select"),
        ({"shift_seconds": [-5.0, 0.0], "shift_mode": "zero"}, "nothing but silence"),
        ({"augment": {"noise_snr_db": [30.0, 10.0]}}, "augment: noise_snr_db"),
        ({"model": {"widths": []}}, "model: widths"),
        ({"model": {"name": "spec_cnn_reference", "widths": [4] * 7}}, r"64 bands to nothing.*n_mels to 128 or more"),
        (
            {"model": {"name": "spec_cnn_reference"}, "data": {"clip_seconds": 0.1}},
            r"halves frames to nothing.*set it to 0\.332 or more",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        build(TrainAConfig, values, "it")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_rate_must_be_a_positive_number(value: float) -> None:
    with pytest.raises(ConfigError, match=r"train\.learning_rate"):
        build(TrainAConfig, {"train": {"learning_rate": value}}, "it")


def test_all_conflicts_are_named_at_once() -> None:
    config = TrainAConfig.model_validate({"shift_seconds": [1.0], "model": {"widths": []}})
    with pytest.raises(ConfigError, match=r"(?s)shift_seconds.*model: widths"):
        check(config, "it")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainAConfig().seed = 3  # type: ignore[misc]


# --- parts


def test_merge_puts_groups_together_and_leaves_its_inputs() -> None:
    base, over = {"a": 1, "g": {"x": 1, "y": [1, 2]}}, {"g": {"y": [3]}, "b": {"z": 1}}
    assert merge(base, over) == {"a": 1, "g": {"x": 1, "y": [3]}, "b": {"z": 1}}
    assert base == {"a": 1, "g": {"x": 1, "y": [1, 2]}}


@pytest.mark.parametrize(("base", "over"), [({"seed": 1}, {"seed": {"a": 2}}), ({"seed": {"a": 2}}, {"seed": 1})])
def test_merge_refuses_a_group_for_a_value(base: dict[str, Any], over: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r'"train\.seed" is given twice, as 1 and as the group {\'a\': 2}'):
        merge({"train": base}, {"train": over})


def test_settings_of_the_machine_are_no_part_of_the_hash_also_where_a_trainer_has_its_own_default() -> None:
    machine = {"device": "cpu", "threads": 1, "checkpointing": True, "channels_last": True}
    for kind in (TrainAConfig, TrainAProConfig):
        assert config_hash(build(kind, {"train": machine}, "it")) == config_hash(kind())


def test_the_hash_changes_with_every_setting() -> None:
    base = TrainAConfig()
    changed = [
        base.model_copy(update={"seed": base.seed + 1}),
        base.model_copy(update={"shift_seconds": (0.0,)}),
        base.model_copy(update={"train": base.train.model_copy(update={"epochs": base.train.epochs + 1})}),
    ]
    hashes = [config_hash(config) for config in (base, *changed)]
    assert len(set(hashes)) == 4
    assert all(len(text) == 12 for text in hashes)
    assert config_hash(TrainAConfig()) == hashes[0]


def test_an_empty_yaml_file_gives_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("# nothing\n")
    assert build(TrainAConfig, read_yaml(tmp_path / "c.yaml"), "c") == TrainAConfig()


def test_1e_3_without_a_point_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("train: {learning_rate: 1e-3}\n")
    assert build(TrainAConfig, read_yaml(tmp_path / "c.yaml"), "c").train.learning_rate == 1e-3


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a: [", b"- 1", b"!!python/name:os.system ''"])
def test_a_file_that_holds_no_settings_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "g:\n  a: 1\n  a: 1\n", "g: {x: {a: 1, a: 2}}\n"])
def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r'(?s)c\.yaml.*"a" stands twice.*line \d'):
        read_yaml(tmp_path / "c.yaml")


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.yaml", tmp_path):
        with pytest.raises(ConfigError, match=path.name):
            read_yaml(path)
