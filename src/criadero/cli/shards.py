"""`criadero shards`: turn text into token shards, and show what is in them."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.output import Json, print_json
from criadero.errors import UsageError

if TYPE_CHECKING:
    from criadero.shards.describe import SampleText
    from criadero.shards.manifest import BuildManifest
    from criadero.shards.write import BuildProgress

logger = logging.getLogger("criadero")

app = typer.Typer(no_args_is_help=True, help="Turn text into token shards, and show what is in them.")

_REPORT_SECONDS = 5.0


@app.command()
def build(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders or globs of .txt, .jsonl (also .gz, .xz, .zst) or .parquet.",
        ),
    ],
    tokenizer: Annotated[Path, typer.Option(help="Tokenizer folder or file, or a model.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    heldout_fraction: Annotated[
        float | None, typer.Option(help="Share of the documents kept from training. Default: 0.02.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Draws the held-out documents. Default: 0.")] = None,
    shard_tokens: Annotated[
        int | None, typer.Option(help="Tokens a shard file holds. Default: 134217728.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Name of the source. Default: text.")] = None,
    skip_bad: Annotated[bool, typer.Option(help="Skip and count records that cannot be read.")] = False,
    json: Json = False,
) -> None:
    """Encode text files into token shards with a train and a held-out split."""
    from criadero import config
    from criadero.formats.load import load_tokenizer
    from criadero.shards.config import ShardConfig
    from criadero.shards.write import build_from_files

    options = {
        "heldout_fraction": heldout_fraction,
        "seed": seed,
        "shard_tokens": shard_tokens,
        "source": source,
    }
    given = {name: value for name, value in options.items() if value is not None}
    settings = config.validate(ShardConfig, given, where="the command line")
    manifest = build_from_files(
        inputs,
        load_tokenizer(tokenizer),
        out,
        config=settings,
        on_bad="skip" if skip_bad else "raise",
        progress=_Reporter(),
    )
    _print_build(out, manifest, json=json)


@app.command()
def show(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", help="Folder that `shards build` made, or one of its splits."),
    ] = None,
    document: Annotated[
        str | None, typer.Option(metavar="ID", help="Print the exact text of this document.")
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=1, help="Print the exact text of this step of --run, from 1.")
    ] = None,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder of --step.")] = None,
    json: Json = False,
) -> None:
    """Summarise shards, or print the text of one document or of one training step."""
    if (step is None) != (run is None):
        raise UsageError("`--step` and `--run` belong together", hint="shards show --run RUN --step N")
    if step is not None and run is not None:
        if path is not None or document is not None:
            raise UsageError("`--step` takes its shards from the run: leave PATH and `--document` out")
        _show_step(run, step, json=json)
    elif path is None:
        raise UsageError("name a folder of shards, or `--run RUN --step N`")
    elif document is not None:
        _show_document(path, document, json=json)
    else:
        _show_summary(path, json=json)


def _show_step(run: Path, step: int, *, json: bool) -> None:
    from dataclasses import asdict

    from criadero import config
    from criadero.formats.load import load_tokenizer
    from criadero.runs import first_sample
    from criadero.shards.batches import Batches
    from criadero.shards.describe import describe_step
    from criadero.shards.manifest import TOKENIZER_FOLDER
    from criadero.train.config import RunConfig

    if not (run / "config.toml").is_file():
        raise UsageError(
            f"`{run}` is not a run folder: it has no config.toml", hint="`criadero runs` lists runs"
        )
    settings = config.load(RunConfig, run / "config.toml")
    if step > settings.total_steps:
        raise UsageError(f"`{run}` has {settings.total_steps:,} steps, there is no step {step:,}")
    tokenizer = load_tokenizer(settings.data.sources[0].path / TOKENIZER_FOLDER)
    count = settings.batch_sequences
    samples = describe_step(Batches(settings.data), tokenizer, first_sample(run, step, count), count)
    if json:
        print_json({"step": step, "samples": [asdict(sample) for sample in samples]})
        return
    for sample in samples:
        _print_sample(sample)


def _print_sample(sample: SampleText) -> None:
    typer.echo(
        f"=== sample {sample.sample}: {sample.source}, epoch {sample.epoch}, sequence {sample.sequence}, "
        f"from token {sample.first_token}"
    )
    for passage in sample.passages:
        typer.echo(f"--- {passage.document_id} ({passage.num_tokens} tokens)")
        typer.echo(passage.text)


def _show_document(path: Path, document_id: str, *, json: bool) -> None:
    from dataclasses import asdict

    from criadero.formats.load import load_tokenizer
    from criadero.shards.describe import document_text, find_document
    from criadero.shards.manifest import TOKENIZER_FOLDER, split_folders

    folders = split_folders(path)
    shards, stored = find_document(folders, document_id)
    text = document_text(shards, load_tokenizer(folders[0].parent / TOKENIZER_FOLDER), stored)
    if json:
        print_json({**asdict(stored), "split": shards.manifest.split, "text": text})
    else:
        typer.echo(text, nl=False)


def _show_summary(path: Path, *, json: bool) -> None:
    from criadero.shards.manifest import split_folders
    from criadero.shards.read import ShardSet

    splits = [ShardSet(folder).manifest for folder in split_folders(path)]
    if json:
        print_json({split.split: split.model_dump(mode="json") for split in splits})
        return
    for split in splits:
        typer.echo(_split_line(split))
        for file in split.files:
            typer.echo(f"  {file.name}  {file.num_documents:,} documents, {file.num_tokens:,} tokens")


def _split_line(split: Any) -> str:
    identity = split.tokenizer
    per_token = split.num_bytes / max(1, split.num_tokens)
    return (
        f"{split.split}: {split.num_documents:,} documents of `{split.source}`, {split.num_tokens:,} tokens, "
        f"{split.num_bytes:,} bytes of text ({per_token:.2f} per token), "
        f"tokenizer {identity.sha256[:12]} with {identity.vocab_size:,} ids"
    )


def _print_build(out: Path, manifest: BuildManifest, *, json: bool) -> None:
    if json:
        print_json({"folder": str(out), **manifest.model_dump(mode="json", exclude={"inputs"})})
        return
    for split in manifest.splits.values():
        typer.echo(_split_line(split))
    if skipped := sum(manifest.skipped.values()):
        typer.echo(f"skipped: {skipped:,} records that could not be read")


class _Reporter:
    """Logs how far a build has come, every few seconds."""

    def __init__(self) -> None:
        self._start = self._said = time.monotonic()

    def __call__(self, progress: BuildProgress) -> None:
        now = time.monotonic()
        if now - self._said < _REPORT_SECONDS:
            return
        self._said = now
        rate = progress.num_bytes / 1e6 / (now - self._start)
        logger.info(
            "%s documents, %s tokens, %.1f MB of text (%.1f MB/s)",
            f"{progress.num_documents:,}", f"{progress.num_tokens:,}", progress.num_bytes / 1e6, rate,
        )  # fmt: skip
