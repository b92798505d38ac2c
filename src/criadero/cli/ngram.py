"""`criadero ngram`: train an n-gram language model, and score text with one."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.output import Json, print_json
from criadero.cli.size import bytes_of

if TYPE_CHECKING:
    from criadero.corpus.ngram.train import NgramProgress

logger = logging.getLogger("criadero")

app = typer.Typer(no_args_is_help=True, help="Train an n-gram language model, and score text with one.")

Texts = Annotated[
    list[Path],
    typer.Argument(
        metavar="TEXT...", help="Files or folders of .txt, .jsonl or .parquet; also .gz, .xz and .zst."
    ),
]

_REPORT_SECONDS = 5.0


@app.command()
def train(
    texts: Texts,
    out: Annotated[Path, typer.Option(help="Model file to make.")],
    order: Annotated[
        int | None, typer.Option(help="Words of the longest n-gram. Default: 5.", show_default=False)
    ] = None,
    arpa: Annotated[
        Path | None, typer.Option(help="Also write the model in ARPA format here, .gz to compress.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="Words are this tokenizer's tokens and sentences are documents, not lines."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What counting may hold at once. Default: 2GiB.")
    ] = None,
    json: Json = False,
) -> None:
    """Estimate an n-gram model with modified Kneser-Ney smoothing, as lmplz does.

    Words are separated by blanks and sentences by line ends; case and punctuation count as they stand.
    """
    from criadero import config
    from criadero.corpus.ngram import text
    from criadero.corpus.ngram.config import NgramConfig
    from criadero.corpus.ngram.train import train as train_on_words
    from criadero.corpus.ngram.train import train_on_tokens

    options = {"order": order, "memory_bytes": None if memory is None else bytes_of(memory)}
    given = {name: value for name, value in options.items() if value is not None}
    settings = config.validate(NgramConfig, given, where="the command line")
    size = text.TextSize()
    report = _Reporter()
    if tokenizer is None:
        summary = train_on_words(text.read_lines(texts, size), out, settings, arpa=arpa, progress=report)
    else:
        from criadero.formats.load import load_tokenizer

        loaded = load_tokenizer(tokenizer)
        documents = text.read_tokens(texts, loaded, size)
        sha256 = loaded.sha256
        summary = train_on_tokens(
            documents, out, settings, tokenizer_sha256=sha256, arpa=arpa, progress=report
        )
    if json:
        counts = list(summary.counts)
        print_json(
            {"model": str(out), "tokens": summary.num_tokens, "counts": counts, "sha256": summary.sha256}
        )
    else:
        counts_text = ", ".join(f"{count:,}" for count in summary.counts)
        typer.echo(f"{out}: {summary.num_tokens:,} tokens; n-grams by order: {counts_text}")


@app.command()
def score(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="File of `ngram train`, or .arpa, or .arpa.gz.")
    ],
    texts: Texts,
    tokenizer: Annotated[
        Path | None, typer.Option(help="The tokenizer the model was trained with, if it was.")
    ] = None,
    json: Json = False,
) -> None:
    """Print perplexity, unknown words and bits per byte of text."""
    from criadero.corpus.ngram.arpa import open_any
    from criadero.corpus.ngram.text import score_texts
    from criadero.formats.load import load_tokenizer

    with open_any(model) as opened:
        loaded = None if tokenizer is None else load_tokenizer(tokenizer)
        values = score_texts(opened, texts, tokenizer=loaded)
    if json:
        print_json(values)
    else:
        typer.echo(_score_lines(values))


def _score_lines(values: dict[str, Any]) -> str:
    return (
        f"{values['sentences']:,} sentences, {values['words']:,} words, {values['unknown']:,} unknown\n"
        f"log10 probability             {values['log10_probability']:,.2f}\n"
        f"perplexity                    {values['perplexity']:,.3f}\n"
        f"perplexity without unknown    {values['perplexity_of_known']:,.3f}\n"
        f"bits per byte                 {values['bits_per_byte']:.4f}"
    )


class _Reporter:
    """Logs each stage, and how far reading has come every few seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = time.monotonic()

    def __call__(self, progress: NgramProgress) -> None:
        now = time.monotonic()
        if progress.stage == self._stage and now - self._said < _REPORT_SECONDS:
            return
        self._stage, self._said = progress.stage, now
        logger.info("%s: %s tokens", progress.stage, f"{progress.num_tokens:,}")
