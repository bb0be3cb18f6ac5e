"""The machinery of settings: frozen classes, YAML in and out, one message for all mistakes, a content hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from esc_ensemble.errors import ConfigError, did_you_mean, list_problems

MACHINE = "machine"
"""Mark of a setting (`Field(json_schema_extra={MACHINE: True})`) that says where and how something is computed, not
what: it is no part of a run's identity, so that a run can go on with another value."""

# What pydantic's kinds of errors are in a user's words; others keep pydantic's.
WORDS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list, such as [1, 2]",
    "missing": "is missing",
    "too_long": "must have at most {max_length} values",
    "model_type": "must be a group of settings",
    "dict_type": "must be a group of settings",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
}


class Settings(BaseModel):
    """A frozen group of settings. The text under a field is its help in the command line and in YAML.

    Other defaults for a group are a subclass of it, not an instance with other values: so they hold where the group
    is named in part, and the command line shows them. A field of it without a text keeps its parent's, and its mark.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        for parent in cls.__bases__:
            for name, field in getattr(parent, "model_fields", {}).items():
                own = cls.model_fields[name]
                own.description = own.description or field.description
                own.json_schema_extra = own.json_schema_extra or field.json_schema_extra

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty group is all defaults; true and false are not 1 and 0."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if value is None and _is_group(annotation):
            return {}
        parts = value if isinstance(value, list | tuple) else [value]
        if annotation is not bool and any(isinstance(part, bool) for part in parts):
            raise PydanticCustomError("truth", "must not be true or false")
        return value

    def conflicts(self) -> Iterator[str]:
        """Gives what is wrong between the fields, which are right each for itself.

        Checked by `check` once all sources (flags, YAML, defaults) are merged, not by each source on its own.
        """
        yield from ()


S = TypeVar("S", bound=Settings)


class _Loader(yaml.SafeLoader):
    """Reads plain YAML and refuses a key given twice, of which the first would be lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f'"{key.value}" stands twice', key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of settings as a plain dict. Tags that would build Python objects are refused.

    Raises:
        ConfigError: the file is missing or is not a YAML mapping.
    """
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found a {type(value).__name__}.")
    return value


def merge(base: dict[str, Any], over: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Gives `base` with the values of `over` put in, group by group. A group without content changes nothing.

    Raises:
        ConfigError: what is a group in one is a value in the other.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, dict) and value is None:
            continue
        if key in merged and old is not None and isinstance(old, dict) != isinstance(value, dict):
            group, single = (old, value) if isinstance(old, dict) else (value, old)
            raise ConfigError(f'"{prefix}{key}" is given twice, as {single!r} and as the group {group!r}.')
        merged[key] = merge(old or {}, value, f"{prefix}{key}.") if isinstance(value, dict) else value
    return merged


def build(kind: type[S], values: dict[str, Any], origin: str) -> S:
    """Checks `values` and makes the settings from them.

    Args:
        kind: the settings class.
        values: nested values; what is absent keeps its default.
        origin: where the values came from, for the message.

    Raises:
        ConfigError: all unknown keys and bad values, each by its dotted name, with the nearest right key.
    """
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(list_problems(f"{origin} cannot be used:", explain(kind, error))) from error
    check(settings, origin)
    return settings


def check(settings: Settings, origin: str) -> None:
    """Refuses settings that do not go together.

    Raises:
        ConfigError: all conflicts, in this group and in those inside it.
    """
    problems = list(_all_conflicts(settings, ""))
    if problems:
        raise ConfigError(list_problems(f"{origin} cannot be used:", problems))


def explain(kind: type[Settings], error: ValidationError) -> list[str]:
    """Turns pydantic's findings into one line each: the dotted key, what is wrong, and the value found."""
    return [_problem(kind, dict(detail)) for detail in error.errors()]


def _all_conflicts(settings: Settings, prefix: str) -> Iterator[str]:
    yield from (f"{prefix}{problem}" for problem in settings.conflicts())
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            yield from _all_conflicts(value, f"{prefix}{name}: ")


def _problem(kind: type[Settings], detail: dict[str, Any]) -> str:
    location = [str(part) for part in detail["loc"]]
    name = ".".join(location)
    if detail["type"] == "extra_forbidden":
        return f'unknown key "{name}".{_nearest(kind, location)}'
    words = WORDS.get(detail["type"])
    message = words.format(**detail.get("ctx", {})) if words else detail["msg"]
    return f"{name}: {message} (found {detail['input']!r})" if name else message


def _nearest(kind: type[Settings], location: list[str]) -> str:
    """Asks whether the nearest key of the same group was meant, or the key of this very name in another group."""
    *groups, last = location
    for name in groups:
        kind = kind.model_fields[name].annotation  # type: ignore[assignment]
    elsewhere = [name for name in _dotted(kind) if name.rpartition(".")[2] == last]
    if len(elsewhere) == 1:
        return f' Did you mean "{".".join([*groups, *elsewhere])}"?'
    return did_you_mean(last, kind.model_fields, ".".join([*groups, ""]))


def _dotted(kind: type[Settings], prefix: str = "") -> Iterator[str]:
    """The names of all settings in a group and in those inside it."""
    for name, field in kind.model_fields.items():
        if _is_group(field.annotation):
            yield from _dotted(field.annotation, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{name}"


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def to_yaml(settings: Settings, *, comments: bool = False) -> str:
    """Writes every setting, defaults spelled out, as YAML; with `comments`, each field's help above it."""
    return "\n".join(_yaml_lines(settings, "", comments)) + "\n"


def _yaml_lines(settings: Settings, indent: str, comments: bool) -> list[str]:
    lines = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if comments and field.description:
            lines.append(f"{indent}# {field.description}")
        if isinstance(value, Settings):
            lines += [f"{indent}{name}:", *_yaml_lines(value, indent + "  ", comments)]
        else:
            plain = list(value) if isinstance(value, tuple) else value
            text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()
            lines.append(f"{indent}{name}: {text}")
    return lines


def config_hash(settings: Settings) -> str:
    """Gives 12 hex digits that change when any setting changes that bears on results."""
    text = json.dumps(identity(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity(settings: Settings) -> dict[str, Any]:
    """Gives all settings as plain values, but those marked with `MACHINE`."""
    kept: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            kept[name] = identity(value)
        elif field.json_schema_extra != {MACHINE: True}:
            kept[name] = list(value) if isinstance(value, tuple) else value
    return kept
