"""`criadero tokenizer`: learn a vocabulary, turn text into ids and ids into text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.output import Json, print_json
from criadero.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

app = typer.Typer(no_args_is_help=True, help="Learn a vocabulary, turn text into ids and back.")

Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Tokenizer folder or file, model folder, run or .gguf file.")
]


@app.command()
def train(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    sources: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]TEXT...", help="Text files or folders, with a name for the source."),
    ],
    vocab_size: Annotated[
        int | None, typer.Option(help="Ids in all. Default: 32000.", show_default=False)
    ] = None,
    sample_bytes: Annotated[
        int | None, typer.Option(help="Text to learn from. Default: 200 MB.", show_default=False)
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="NAME=SHARE of the sample; all or none.", show_default=False)
    ] = None,
    character_coverage: Annotated[
        float | None, typer.Option(help="Share of characters with a piece. Default: 0.99995.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Chooses the sample. Default: 0.")] = None,
    json: Json = False,
) -> None:
    """Learn a vocabulary from text with LLaMA's settings."""
    from criadero import config
    from criadero.tokenizer import train as training

    options = {
        "vocab_size": vocab_size,
        "sample_bytes": sample_bytes,
        "character_coverage": character_coverage,
        "weights": _shares(weight or []) or None,
        "seed": seed,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = config.validate(training.TokenizerTrainConfig, given, where="the command line")
    tokenizer = training.train(_texts_by_source(sources), out, settings)
    if json:
        print_json({"folder": str(out), "vocab_size": tokenizer.vocab_size, "sha256": tokenizer.sha256})
    else:
        typer.echo(f"{out}: {tokenizer.vocab_size:,} ids")


@app.command()
def encode(model: Model, json: Json = False) -> None:
    """Read text on stdin and print its ids, without control tokens."""
    from criadero.formats.load import load_tokenizer

    ids = load_tokenizer(model).encode(_text_on_stdin())
    if json:
        print_json({"ids": ids})
    else:
        typer.echo(" ".join(map(str, ids)))


@app.command()
def decode(model: Model, json: Json = False) -> None:
    """Read ids on stdin, separated by blanks, and print their text with nothing added."""
    from criadero.formats.load import load_tokenizer

    words = _text_on_stdin().split()
    if wrong := next((word for word in words if not word.isdecimal()), None):
        raise UsageError(f"{wrong[:100]!r} on stdin is not an id", hint="give numbers, separated by blanks")
    text = load_tokenizer(model).decode([int(word) for word in words])
    if json:
        print_json({"text": text})
    else:
        typer.echo(text, nl=False)


def _text_on_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(f"stdin is not UTF-8 text: byte {problem.start} is wrong") from None


def _texts_by_source(sources: list[str]) -> dict[str, Iterable[str]]:
    found: dict[str, Iterable[str]] = {}
    for source in sources:
        name, named, rest = source.partition("=")
        path = Path(rest if named else source)
        name = name if named else path.name
        if name in found:
            raise UsageError(f"two sources are called `{name}`", hint="name them: NAME=TEXT")
        found[name] = _texts(path)
    return found


def _texts(path: Path) -> Iterator[str]:
    from criadero.corpus.sources import text

    for document in text.read(path):
        yield document.text


def _shares(weights: list[str]) -> dict[str, float]:
    shares: dict[str, float] = {}
    for weight in weights:
        name, _, share = weight.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise UsageError(f"`--weight {weight}` is not of the form NAME=SHARE") from None
    return shares
