"""A recipe for a corpus: `CorpusConfig`, read from TOML by `load_recipe`.

    include = ["wikipedia.toml"]            # recipes made of recipes; what stands here wins
    [sources.mine]
    kind = "text"                           # decides which further settings there are
    inputs = ["data/*.jsonl"]               # relative to the recipe, or URLs
    near_duplicates = {}                    # a step with its defaults; `false` leaves one out
    [mixture]
    weights = {wikipedia = 4.5, mine = 95.5}

Each kind of source owns its settings, in `criadero.corpus.sources`; `KINDS` lists them. Only the kinds that
a recipe names are imported.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, new_class
from typing import Any, Self, get_args

from pydantic import Field, SerializeAsAny, model_validator

from criadero.config import Config, apply_override, check, faults_of, read_toml
from criadero.corpus.decontaminate import DecontaminationConfig
from criadero.corpus.dedup.minhash import MinHashConfig
from criadero.corpus.engine.config import EngineConfig
from criadero.corpus.extra import require_extra
from criadero.corpus.mixture import MixtureConfig
from criadero.errors import ConfigError

# kind -> module with its `stages`, and the name of its settings there
KINDS = {
    "arxiv": ("criadero.corpus.sources.arxiv.recipe", "ArxivConfig"),
    "books": ("criadero.corpus.sources.books.recipe", "BooksConfig"),
    "c4": ("criadero.corpus.sources.c4.recipe", "C4Config"),
    "commoncrawl": ("criadero.corpus.sources.commoncrawl.recipe", "CommonCrawlConfig"),
    "github": ("criadero.corpus.sources.github.recipe", "GitHubConfig"),
    "stackexchange": ("criadero.corpus.sources.stackexchange.recipe", "StackExchangeConfig"),
    "text": ("criadero.corpus.sources.plain", "TextConfig"),
    "wikipedia": ("criadero.corpus.sources.wikipedia.recipe", "WikipediaConfig"),
}
# kinds whose models are made from other sources -> module with `needs` and `prepare`
PREPARED = {"commoncrawl": "criadero.corpus.sources.commoncrawl.prepare"}
_MAX_INCLUDES = 100


class SourceConfig(Config):
    """What every source has, whatever its kind.

    Attributes:
        kind: how its files are read and cleaned.
        inputs: files, folders and globs, relative to the recipe, or URLs.
        description, version, url, licence: what the data card says of it.
        near_duplicates: drop documents that nearly repeat an earlier one of this source.
    """

    kind: str
    inputs: tuple[str, ...] = Field(min_length=1)
    description: str = ""
    version: str = ""
    url: str = ""
    licence: str = ""
    near_duplicates: MinHashConfig | None = None


class CorpusConfig(Config):
    """A whole recipe.

    Attributes:
        sources: by name; the name is what its documents carry.
        decontaminate: drop documents that hold passages of the evaluation sets, in every source.
        mixture: weights of the sources in training.
        engine: limits of the build; they change nothing that is written.
    """

    sources: dict[str, SerializeAsAny[SourceConfig]] = Field(min_length=1)
    decontaminate: DecontaminationConfig | None = None
    mixture: MixtureConfig = MixtureConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = [
            f"the source name {name!r} must be letters, digits, `-` and `_`"
            for name in self.sources
            if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii()
        ]
        weights = self.mixture.weights
        if unknown := sorted(set(weights) - set(self.sources)):
            faults.append(f"mixture.weights names {', '.join(unknown)}, which is no source")
        if weights and (without := [name for name in self.sources if name not in weights]):
            faults.append(
                f"give every source a weight or none (0 leaves it out); without: {', '.join(without)}"
            )
        if negative := [name for name, weight in weights.items() if not 0 <= weight < float("inf")]:
            faults.append(f"a weight is 0 or more; not so: {', '.join(negative)}")
        if weights and not any(weights.values()):
            faults.append("every weight is 0")
        if faults:
            raise ValueError("\n".join(faults))
        return self


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> CorpusConfig:
    """Read a recipe with all it includes, apply `section.key=value` overrides, validate.

    Paths in a file are relative to that file, paths in overrides to the current folder.

    Raises:
        ConfigError: a file is missing or not TOML, includes itself, or any value is at fault; all faults are
            listed in one message.
    """
    values = _read_with_includes(path, ())
    overridden: dict[str, Any] = {}
    for override in overrides:
        apply_override(overridden, override)
    _anchor(overridden, values, Path.cwd())
    return validate_recipe(_merged(values, overridden), where=str(path))


def validate_recipe(values: Mapping[str, Any], *, where: str) -> CorpusConfig:
    """Check the values of a recipe, the sources each by its own kind.

    Raises:
        ConfigError: listing every fault at once.
    """
    tables = values.get("sources")
    sources: dict[str, Any] = {}
    faults: list[str] = []
    for name, table in tables.items() if isinstance(tables, dict) else ():
        source, found = _check_source(name, table)
        faults += found
        # A source at fault still counts as one: weights may name it.
        sources[name] = source or SourceConfig.model_construct(kind="", inputs=("",))
    top = {**values, "sources": sources} if isinstance(tables, dict) else dict(values)
    config, found = check(CorpusConfig, top)
    faults += found
    if config is None or faults:
        raise faults_of(where, faults)
    return config


def own_settings(source: SourceConfig) -> Any:
    """Return the settings that belong to the source's kind, as its own config model."""
    model = _own_model(source.kind)
    return model(**{name: getattr(source, name) for name in model.model_fields})


def recipe_module(kind: str) -> Any:
    """Import and return the module that holds the `stages` of a kind.

    Raises:
        DataError: a library it needs is not installed.
    """
    with require_extra(f"a source of kind `{kind}`"):
        return importlib.import_module(KINDS[kind][0])


def prepare_module(kind: str) -> Any:
    """Import and return the module that makes models of a kind from finished sources, if there is one."""
    return importlib.import_module(PREPARED[kind]) if kind in PREPARED else None


def _own_model(kind: str) -> type[Config]:
    model: type[Config] = getattr(recipe_module(kind), KINDS[kind][1])
    return model


@cache
def source_model(kind: str) -> type[SourceConfig]:
    """Return the model of a whole `[sources.NAME]` table of this kind."""
    model: type[SourceConfig] = new_class(f"{kind}_source", (_own_model(kind), SourceConfig))
    return model


def _check_source(name: str, table: Any) -> tuple[SourceConfig | None, list[str]]:
    within = f"sources.{name}"
    if not isinstance(table, dict):
        return None, [f"`{within}` is {table!r}: expected a table"]
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        close = difflib.get_close_matches(str(kind), KINDS, n=1)
        found = "is missing" if kind is None else f"is {kind!r}"
        hint = f", did you mean `{close[0]}`?" if close else f": known are {', '.join(KINDS)}"
        return None, [f"`{within}.kind` {found}{hint}"]
    model = source_model(kind)
    return check(model, {key: _switched(model, key, value) for key, value in table.items()}, within=within)


def _switched(model: type[Config], key: str, value: Any) -> Any:
    """Return None for `false` where a step can be left out; TOML has no word for it."""
    kinds = get_args(model.model_fields[key].annotation) if key in model.model_fields else ()
    return None if value is False and NoneType in kinds and bool not in kinds else value


def _read_with_includes(path: Path, including: tuple[Path, ...]) -> dict[str, Any]:
    """Return the values of a recipe laid over those it includes, all paths absolute."""
    if path.resolve() in including or len(including) > _MAX_INCLUDES:
        raise ConfigError(f"`{path}` includes itself")
    values = read_toml(path)
    names = values.pop("include", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"`{path}`: `include` is {names!r}, expected a list of files")
    merged: dict[str, Any] = {}
    for name in names:
        included = _read_with_includes(path.parent / name, (*including, path.resolve()))
        if twice := sorted(_tables(merged).keys() & _tables(included).keys()):
            raise ConfigError(f"`{path}`: `{twice[0]}` is a source of `{name}` and of an earlier include")
        merged = _merged(merged, included)
    _anchor(values, merged, path.parent.resolve())
    return _merged(merged, values)


def _tables(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the tables of the sources, without what is none."""
    sources = values.get("sources")
    tables = sources if isinstance(sources, dict) else {}
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one nested table over another; lists and single values are replaced."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        nested = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = _merged(under or {}, value) if nested else value
    return merged


def _anchor(values: dict[str, Any], below: Mapping[str, Any], folder: Path) -> None:
    """Make the relative paths in `values` absolute, in place; `below` may know the kind of a source."""
    known = _tables(below)
    for name, table in _tables(values).items():
        kind = table.get("kind", known.get(name, {}).get("kind"))
        is_known = isinstance(kind, str) and kind in KINDS
        _anchor_paths(table, source_model(kind) if is_known else SourceConfig, folder)
        if isinstance(table.get("inputs"), list):
            table["inputs"] = [_anchored(value, folder) for value in table["inputs"]]
    for section, model in (("mixture", MixtureConfig), ("decontaminate", DecontaminationConfig)):
        if isinstance(values.get(section), dict):
            _anchor_paths(values[section], model, folder)


def _anchor_paths(table: dict[str, Any], model: type[Config], folder: Path) -> None:
    for name, field in model.model_fields.items():
        if name in table and _holds_paths(field.annotation):
            value = table[name]
            many = isinstance(value, list)
            table[name] = [_anchored(v, folder) for v in value] if many else _anchored(value, folder)


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(_holds_paths(part) for part in get_args(annotation))


def _anchored(value: Any, folder: Path) -> Any:
    return os.path.normpath(folder / value) if isinstance(value, str) and "://" not in value else value
