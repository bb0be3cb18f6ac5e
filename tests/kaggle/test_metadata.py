from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slugify import slugify as reference_slug

from esc_ensemble.errors import ConfigError
from esc_ensemble.export.card import LICENCES as TOLD
from esc_ensemble.kaggle.metadata import (
    LICENCE_OF_DATA,
    LICENCES,
    DatasetMetadata,
    KernelMetadata,
    check_all,
    choose_licence,
    slugify,
)


@given(st.text(string.ascii_letters + string.digits + " .,:;!?()[]{}+-_*/'\"#~|<>=%$@^`\\", max_size=60))
def test_slugs_are_those_of_the_client(title: str) -> None:
    assert slugify(title) == reference_slug(title)


def kernel(**over: object) -> KernelMetadata:
    values: dict[str, object] = {"owner": "me", "title": "Loud Sounds", "code_file": "kaggle_kernel.py", **over}
    return KernelMetadata(**values)  # type: ignore[arg-type]


def dataset(**over: object) -> DatasetMetadata:
    return DatasetMetadata(**{"owner": "me", "title": "Loud Sounds model", "licence": "other", **over})  # type: ignore[arg-type]


def test_every_switch_is_written() -> None:
    content = kernel(gpu=True, machine_shape="NvidiaTeslaT4", datasets=("me/x-y-z",)).to_json()
    assert content["id"] == "me/loud-sounds"
    assert content["enable_internet"] is False
    assert content["is_private"] is True
    assert content["enable_gpu"] is True
    assert content["machine_shape"] == "NvidiaTeslaT4"
    assert content["kernel_type"] == "script"
    assert "machine_shape" not in kernel().to_json()
    assert dataset().to_json()["licenses"] == [{"name": "other"}]


def test_what_is_right_is_let_through() -> None:
    models = ("google/yamnet/tensorFlow2/yamnet/1",)
    check_all(
        kernel(
            datasets=("me/x-y-z", "you/data/3"), competitions=("rain-or-fire",), kernels=("me/other",), models=models
        ),
        dataset(subtitle="Sound classifier, 10 classes, one file"),
    )
    check_all(kernel(), None)


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"title": "Abcd"}, "must have 5 to 50"),
        ({"title": "x" * 51}, "it has 51"),
        ({"title": "!!!!!"}, 'the slug ""'),
        ({"title": "Töne im Wald"}, "plain letters"),
        ({"title": "Rain & Fire"}, "plain letters"),
        ({"owner": ""}, "--user"),
        ({"owner": "Me Myself"}, "--user"),
        ({"datasets": ("esc-10",)}, "OWNER/SLUG"),
        ({"datasets": ("me/",)}, "OWNER/SLUG"),
        ({"datasets": ("me/a_b",)}, "OWNER/SLUG"),
        ({"datasets": ("me/x", "me/x")}, "twice"),
        ({"competitions": ("https://kaggle.com/c/rain",)}, "form SLUG"),
        ({"models": ("a/b/c/d",)}, "OWNER/MODEL/FRAMEWORK"),
        ({"models": ("a/b/c/d/latest",)}, "number of a version"),
        ({"machine_shape": "NvidiaL4"}, "--gpu"),
    ],
)
def test_a_kernel_that_kaggle_would_refuse_is_refused(over: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_all(kernel(**over), None)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("over", "told"),
    [
        ({"title": "Model"}, "must have 6 to 50"),
        ({"licence": "CC-BY"}, 'Did you mean "CC-BY-'),
        ({"licence": ""}, "licence"),
        ({"subtitle": "Too short"}, "20 to 80"),
    ],
)
def test_a_data_set_that_kaggle_would_refuse_is_refused(over: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_all(kernel(), dataset(**over))
    assert told in str(refused.value)


def test_all_that_is_wrong_stands_in_one_message() -> None:
    with pytest.raises(ConfigError) as refused:
        check_all(kernel(owner="", title="x"), dataset(owner="", licence="mine"))
    assert len(str(refused.value).splitlines()) == 5  # the user once


def test_licences_follow_from_the_data_where_it_is_known() -> None:
    assert LICENCE_OF_DATA.keys() == TOLD.keys()
    for name, (licence, note) in LICENCE_OF_DATA.items():
        assert licence in LICENCES
        assert ("NC" in licence) == ("CC BY-NC" in TOLD[name]) == ("not for commercial" in note)
        assert choose_licence("", name) == (licence, note)
    assert choose_licence("CC0-1.0", "ESC-10")[0] == "CC0-1.0"
    assert choose_licence("CC0-1.0", "mine") == ("CC0-1.0", "")
    with pytest.raises(ConfigError, match="--licence"):
        choose_licence("", "mine")
