"""The reference pages that come from the program itself: cli.md, config.md, recipe.md, api.md, errors.md.

    python docs/reference/generate.py           rewrites them
    python docs/reference/generate.py --check   fails, naming the page, if one says something else

Entry point: `pages`, which tests/docs/test_reference.py compares with the files. formats.md is by hand.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import os
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
WIDTH = 88
NOTE = "<!-- Made by docs/reference/generate.py from the program; edit the program instead. -->"

CLI_OPENING = """\
What `--help` prints, at 88 columns. Results go to stdout, logs and progress to stderr. Exit codes:
[errors.md](errors.md). A MODEL is a Hugging Face folder, a run or checkpoint, a Meta folder or a `.gguf`
file. For completion in your shell: `criadero --install-completion`."""

CONFIG_OPENING = """\
A training config is a TOML file; `section.key=value` after it on the command line replaces a setting.
Unknown keys are refused, and all faults are reported at once. What a run really used is in its
`config.toml`."""

RECIPE_OPENING = """\
A recipe of `criadero corpus build` is a TOML file; `section.key=value` behind it on the command line
replaces a setting. Besides the tables below it may have `include = ["other.toml"]`, which takes over the
sources of other recipes. Paths are relative to the file they stand in. Unknown keys are refused, and all
faults are reported at once. `false` leaves out a step that can be left out, `{}` asks for one with its
defaults. The resolved recipe is in the `manifest.json` of the corpus. How to write one:
[build a corpus](../guides/build-a-corpus.md)."""

PRESETS_OPENING = """\
`preset = "NAME"` in `[model]` stands for the preset's fields; fields beside it win.

| preset | parameters |
| --- | --- |
"""

API_OPENING = """\
Everything here is imported from `criadero.api`. The example in the
[README](../../README.md) is run by a test."""

STABILITY = """\
While the major version is 0, a change to what is listed takes a new minor version and a note in the
[changelog](../../CHANGELOG.md). The same holds for the command line, the [settings](config.md), the
[exit codes](errors.md) and the [file formats](formats.md), which carry versions of their own."""

ERRORS_CLOSING = """\
All of them are in `criadero.errors`; `error.message`, `error.hint` and `error.exit_code` are public. Why 75:
it is `EX_TEMPFAIL` of sysexits.h, which Slurm can be told to requeue on (`RequeueExit`)."""

EXIT_CODES = {
    0: "done",
    1: "failed",
    2: "a command line or config that cannot be used",
    75: "stopped early with everything saved: run the same command again to go on",
}


def pages() -> dict[str, str]:
    """Return the content of every generated page by its file name."""
    makers: dict[str, Callable[[], str]] = {
        "api.md": api_page, "cli.md": cli_page, "config.md": config_page, "errors.md": errors_page,
        "recipe.md": recipe_page,
    }  # fmt: skip
    return {name: maker() for name, maker in makers.items()}


# --- cli.md


def cli_page() -> str:
    """Return what `--help` of the program and of every verb prints."""
    import typer.main

    from criadero.cli.app import app

    command = typer.main.get_command(app)
    parts = [
        "# Commands",
        NOTE,
        CLI_OPENING,
    ]
    for words in _command_words(command, ()):
        title = " ".join(("criadero", *words))
        parts.append(f"## {title}\n\n```text\n{_help_text(app, words)}\n```")
    return "\n\n".join(parts) + "\n"


def _command_words(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        yield from _command_words(child, (*words, name))


def _help_text(app: Any, words: tuple[str, ...]) -> str:
    from typer.testing import CliRunner

    environment = {"COLUMNS": str(WIDTH), "TERM": "dumb", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="criadero", env=environment)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    return "\n".join(line.rstrip() for line in plain.strip("\n").splitlines()).strip()


# --- config.md


def config_page() -> str:
    """Return every section of a training config, and the settings of the other verbs, as tables."""
    from criadero.generate.sampling import SamplingConfig
    from criadero.model.presets import PRESETS, num_parameters, preset
    from criadero.shards.config import ShardConfig
    from criadero.tokenizer.train import TokenizerTrainConfig
    from criadero.train.config import RunConfig

    sizes = [f"| `{name}` | {num_parameters(preset(name)):,} |" for name in PRESETS]
    return (
        "\n\n".join(
            [
                "# Settings",
                NOTE,
                CONFIG_OPENING,
                _model_section("The whole file", RunConfig, level=2),
                *_sections(RunConfig),
                "## Presets\n\n" + PRESETS_OPENING + "\n".join(sizes),
                _model_section("`criadero tokenizer train`", TokenizerTrainConfig, level=2),
                _model_section("`criadero shards build`", ShardConfig, level=2),
                _model_section("`criadero generate`, `criadero chat`", SamplingConfig, level=2),
            ]
        )
        + "\n"
    )


def recipe_page() -> str:
    """Return every table of a corpus recipe, and the settings of each kind of source."""
    from criadero.corpus.config import KINDS, CorpusConfig, SourceConfig, recipe_module

    kinds = {kind: getattr(recipe_module(kind), name) for kind, (_, name) in KINDS.items()}
    parts = [
        "# Settings of a corpus",
        NOTE,
        RECIPE_OPENING,
        _model_section("The whole file", CorpusConfig, level=2),
        *_with_nested("`[sources.NAME]`", "`{}`", SourceConfig),
    ]
    for name, field in CorpusConfig.model_fields.items():
        if name != "sources":
            parts += [_model_section(f"`[{name}]`", model, level=2) for model in _models_in(field.annotation)]
    for kind, model in kinds.items():
        parts += _with_nested(f"`[sources.NAME]` of kind `{kind}`", f"`{{}}` of kind `{kind}`", model)
    return "\n\n".join(parts) + "\n"


def _with_nested(title: str, nested_title: str, model: Any) -> Iterator[str]:
    yield _model_section(title, model, level=2)
    for name, field in model.model_fields.items():
        for nested in _models_in(field.annotation):
            yield _model_section(nested_title.format(name), nested, level=3)


def _sections(root: Any) -> Iterator[str]:
    for name, field in root.model_fields.items():
        for found in _models_in(field.annotation):
            yield _model_section(f"`[{name}]`", found, level=2)
            for inner_name, inner in found.model_fields.items():
                for nested in _models_in(inner.annotation):
                    many = "tuple" in _type_text(inner.annotation, models=True)
                    title = f"`[[{name}.{inner_name}]]`" if many else f"`[{name}.{inner_name}]`"
                    yield _model_section(title, nested, level=3)


def _model_section(title: str, model: Any, *, level: int) -> str:
    rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
    meanings = field_meanings(model)
    for name, field in model.model_fields.items():
        cells = (f"`{name}`", _field_type(field), _default_text(field), meanings.get(name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return f"{'#' * level} {title}\n\n{_summary(model)}\n\n" + "\n".join(rows)


def field_meanings(model: Any) -> dict[str, str]:
    """Return what each field means: from `Attributes:` of the docstring, or the text below the field."""
    meanings: dict[str, str] = {}
    _, _, listed = (inspect.getdoc(model) or "").partition("\nAttributes:\n")
    for entry in re.split(r"\n(?=    \w)", "\n" + listed):
        names, colon, text = entry.strip().partition(":")
        if colon:
            meanings |= dict.fromkeys((name.strip() for name in names.split(",")), " ".join(text.split()))
    body = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0].body  # type: ignore[attr-defined]
    for before, after in itertools.pairwise(body):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if isinstance(before, ast.AnnAssign) and is_text:
            meanings[before.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return meanings


def _summary(model: Any) -> str:
    text = " ".join((inspect.getdoc(model) or "").partition("\nAttributes:\n")[0].split())
    opening = re.match(r"Section \[\w+\]: ", text)
    rest = text if opening is None else text[opening.end() :]
    return rest[0].upper() + rest[1:]


def _models_in(annotation: Any) -> list[Any]:
    from criadero.config import Config

    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _field_type(field: Any) -> str:
    bounds = [f"{sign} {value}" for sign, value in _bounds(field.metadata)]
    text = _type_text(field.annotation)
    return f"{text}, {' and '.join(bounds)}" if bounds else text


def _bounds(metadata: list[Any]) -> Iterator[tuple[str, Any]]:
    for constraint in metadata:
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("min_length", "length >=")):
            value = getattr(constraint, name, None)
            if value is not None:
                yield sign, f"{value:,}" if isinstance(value, int) else value


def _type_text(annotation: Any, *, models: bool = False) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        bounds = " and ".join(f"{sign} {value}" for sign, value in _bounds(_flat(parts[1:])))
        return _type_text(parts[0], models=models) + (f" {bounds}" if bounds else "")
    if origin is typing.Literal:
        return " or ".join(f"`{str(part).lower() if isinstance(part, bool) else part}`" for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_text(p, models=models) for p in parts if p is not type(None))
    if origin is tuple:
        inner = _type_text(parts[0], models=models)
        return f"tuple of {inner}" if models else f"list of {inner}"
    if origin is dict:
        return f"table of {_type_text(parts[1], models=models)} by name"
    if _models_in(annotation):
        return "table"
    return {"Path": "path", "str": "text", "NoneType": "nothing"}.get(
        annotation.__name__, annotation.__name__
    )


def _flat(metadata: tuple[Any, ...]) -> list[Any]:
    found: list[Any] = []
    for entry in metadata:
        found += getattr(entry, "metadata", None) or [entry]
    return found


def _default_text(field: Any) -> str:
    from pydantic import BaseModel
    from pydantic_core import PydanticUndefined

    if field.default_factory is not None:
        return "derived"
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "unset"
    if field.default == "":
        return "empty"
    if isinstance(field.default, BaseModel):
        return "see below"
    if isinstance(field.default, tuple):
        return "empty" if not field.default else f"`{list(field.default)}`"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`"


# --- api.md


def api_page() -> str:
    """Return the public functions with their signatures, and what they return."""
    from criadero import api

    functions = [getattr(api, name) for name in api.__all__]
    kept = " ".join((inspect.getdoc(api) or "").partition("\n\n")[2].split())
    parts = [
        "# Python API",
        NOTE,
        API_OPENING,
        f"## Stability\n\n{kept}\n\n{STABILITY}",
        "## Functions",
        *[_function_section(function) for function in functions],
        "`criadero.__version__` is the version as text.",
        "## What they return",
        *[_class_section(found) for found in _returned(functions)],
    ]
    return "\n\n".join(parts) + "\n"


def _function_section(function: Any) -> str:
    signature = inspect.signature(function)
    lines, starred = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            lines.append("    *,")
        starred |= parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        lines.append(f"    {parameter},".replace("'", ""))  # annotations are kept as text
    text = "\n".join([f"{function.__name__}(", *lines, f") -> {signature.return_annotation}"])
    return f"### `criadero.api.{function.__name__}`\n\n```python\n{text}\n```\n\n{_as_markdown(function)}"


def _returned(functions: list[Any]) -> list[Any]:
    from criadero.corpus.build import CorpusResult  # which api.py imports only where it is needed

    names = {"CorpusResult": CorpusResult}
    found = [typing.get_type_hints(function, localns=names)["return"] for function in functions]
    return list(dict.fromkeys(found))


def _class_section(found: Any) -> str:
    fields = getattr(found, "model_fields", None) or getattr(found, "__dataclass_fields__", {})
    members = [name for name, value in vars(found).items() if _is_public(name, value)]
    shown = [f"Fields: {', '.join(f'`{name}`' for name in fields)}."] if fields else []
    shown += [f"Also: {', '.join(f'`{name}`' for name in members)}."] if members else []
    return f"### `{found.__name__}`\n\n{_as_markdown(found)}\n\n" + " ".join(shown)


def _is_public(name: str, value: Any) -> bool:
    return not name.startswith(("_", "model_")) and (inspect.isfunction(value) or isinstance(value, property))


def _as_markdown(documented: Any) -> str:
    """Turn a docstring with `Args:`, `Raises:` and `Attributes:` into paragraphs and lists."""
    blocks = []
    for block in (inspect.getdoc(documented) or "").split("\n\n"):
        title, _, rest = block.partition("\n")
        if title in {"Args:", "Raises:", "Returns:", "Attributes:"}:
            entries = re.split(r"\n(?=\S)", textwrap.dedent(rest))
            listed = "\n".join(f"- {_marked(' '.join(entry.split()))}" for entry in entries)
            blocks.append(f"{title}\n\n{listed}")
        else:
            blocks.append(" ".join(block.split()))
    return "\n\n".join(blocks)


def _marked(entry: str) -> str:
    name, colon, text = entry.partition(": ")
    return f"`{name}`: {text}" if colon else entry


# --- errors.md


def errors_page() -> str:
    """Return the exception tree with its exit codes."""
    from criadero import errors

    heading, _, rest = (inspect.getdoc(errors) or "").partition("\n\n")
    tree, _, after = rest.partition("\n\n")
    listed = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return (
        "\n\n".join(
            [
                "# Errors and exit codes",
                NOTE,
                heading,
                f"```text\n{textwrap.dedent(tree)}\n```",
                " ".join(after.split()) + " `criadero --debug VERB ...` shows the traceback as well.",
                "| exit code | meaning |\n| --- | --- |\n" + listed,
                ERRORS_CLOSING,
            ]
        )
        + "\n"
    )


def main() -> int:
    """Rewrite the pages, or with `--check` compare them; return the exit code."""
    sys.path.insert(0, str(FOLDER.parents[1] / "src"))
    os.environ.setdefault("NO_COLOR", "1")
    drifted = []
    for name, content in pages().items():
        path = FOLDER / name
        if not path.exists() or path.read_text() != content:
            drifted.append(name)
            if "--check" not in sys.argv:
                path.write_text(content)
    if drifted:
        sys.stderr.write(f"{'differ' if '--check' in sys.argv else 'rewritten'}: {', '.join(drifted)}\n")
    return 1 if drifted and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
