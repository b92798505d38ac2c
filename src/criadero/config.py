"""Typed configuration: a TOML file, then `section.key=value` overrides, checked as a whole.

Entry point: `load(Model, path, overrides)`. Each package owns its config model, a subclass of `Config`;
unknown keys are refused with a suggestion and all faults are reported at once. Nothing here is imported
by `import criadero` or `--help`, because pydantic is slow to import.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError

from criadero import files
from criadero.errors import ConfigError


class Config(BaseModel):
    """Base of every config model: frozen, unknown keys forbidden, no silent conversions of defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())


C = TypeVar("C", bound=Config)


def load(model: type[C], path: Path | None, overrides: Iterable[str] = ()) -> C:
    """Read `path` (or start empty), apply `section.key=value` overrides, validate.

    Raises:
        ConfigError: the file is missing or not TOML, an override is malformed, or any value is at fault;
            all faults of the values are listed in one message.
    """
    values = read_toml(path) if path is not None else {}
    for override in overrides:
        apply_override(values, override)
    return validate(model, values, where=str(path) if path is not None else "the overrides")


def validate(model: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Check `values` against `model`, listing every fault at once.

    Raises:
        ConfigError: naming `where`, each key at fault, the value found and what was expected.
    """
    config, faults = check(model, values)
    if config is None:
        raise faults_of(where, faults)
    return config


def check(model: type[C], values: Mapping[str, Any], *, within: str = "") -> tuple[C | None, list[str]]:
    """Return the config, or None and a line for each fault; `within` is the section the values stand in."""
    try:
        return model.model_validate(values), []
    except ValidationError as problem:
        found = problem.errors(include_url=False)
        # A default derived from fields that are at fault themselves is no fault of its own.
        real = [fault for fault in found if fault["type"] != "default_factory_not_called"]
        return None, [line for fault in real for line in _describe(model, fault, within)]


def faults_of(where: str, faults: Sequence[str]) -> ConfigError:
    """Return the error that lists the faults of `where`."""
    count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
    return ConfigError(f"{where} has {count}:\n" + "\n".join(f"  - {fault}" for fault in faults))


def to_values(config: Config) -> dict[str, Any]:
    """Return the config as plain JSON-like values, unset options left out."""
    return config.model_dump(mode="json", exclude_none=True)


def save(config: Config, path: Path) -> None:
    """Write the resolved config as TOML, so that `load` gives it back."""
    files.write_text(path, tomli_w.dumps(to_values(config)))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested sections as one level of dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file.

    Raises:
        ConfigError: it is missing, unreadable or not TOML.
    """
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except FileNotFoundError:
        raise ConfigError(f"config file `{path}` does not exist", hint="ready ones are in configs/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ConfigError(f"`{path}` is not valid TOML: {problem}") from problem
    except OSError as problem:
        raise ConfigError(f"`{path}` cannot be read: {problem.strerror}") from problem


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set in `values` what `section.key=value` says; the value is TOML, or else a string.

    Raises:
        ConfigError: it is not of that form, or its section is a value.
    """
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override `{override}` is not of the form `section.key=value`")
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ConfigError(f"override `{override}`: `{section}` is a value, not a section")
    values[last] = _parse_value(text)


def _parse_value(text: str) -> Any:
    """Read the right-hand side as TOML; anything that is not TOML is a plain string."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text


def _describe(model: type[BaseModel], fault: Any, within: str) -> list[str]:
    """Return a line for each thing that is wrong: a validator may say several, one a line."""
    place = ".".join(str(part) for part in (*filter(None, [within]), *fault["loc"]))
    if fault["type"] == "extra_forbidden":
        known = _fields_at(model, fault["loc"][:-1])
        if close := difflib.get_close_matches(str(fault["loc"][-1]), known, n=1):
            return [f"unknown key `{place}`, did you mean `{close[0]}`?"]
        return [f"unknown key `{place}`" + (f"; known are {', '.join(known)}" if known else "")]
    if fault["type"] == "missing":
        return [f"`{place}` is missing"]
    where = f"`{place}`: " if place else ""
    if not isinstance(fault["input"], dict):
        where = f"`{place}` is {fault['input']!r}: "
    return [where + message for message in fault["msg"].removeprefix("Value error, ").splitlines()]


def _fields_at(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the field names of the config model that sits at `location` below `model`."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            nested = _model_in(model.model_fields[part].annotation)
            if nested is None:
                return []
            model = nested
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the config model inside `X`, `X | None` or `list[X]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
