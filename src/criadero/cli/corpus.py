"""`criadero corpus`: make a corpus from raw data, and show what became of sources and documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.output import Json, print_json
from criadero.cli.size import bytes_of

if TYPE_CHECKING:
    from criadero.corpus.build import CorpusResult, SourcePlan
    from criadero.corpus.config import CorpusConfig
    from criadero.corpus.explain import Story
    from criadero.corpus.funnel import SourceFunnel
    from criadero.corpus.mixture import Mixture

app = typer.Typer(
    no_args_is_help=True,
    help="Make a corpus from raw data, and show what became of sources and documents.",
)

Corpus = Annotated[Path, typer.Argument(metavar="OUT", help="Folder that `corpus build` made.")]


@app.command()
def build(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A TOML file; ready ones are in configs/corpus/.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make, or to go on with.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to replace: section.key=value ...")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Tasks at a time; 0 works in this process. Default: one for each core."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="What all workers may use, such as 4GB. Default: 4GiB.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be read and done, without doing it.")
    ] = False,
    json: Json = False,
) -> None:
    """Make clean documents, ledger, mixture and data card; the same command goes on after any stop.

    With RAY_ADDRESS set, work runs on that Ray cluster.
    """
    from criadero.corpus.extra import require_extra

    with require_extra("building a corpus"):
        from criadero.corpus.config import load_recipe

    limits = [] if memory is None else [f"engine.memory_bytes={bytes_of(memory)}"]
    config = load_recipe(recipe, [*(overrides or []), *limits])
    if dry_run:
        _print_plan(config, json=json)
        return
    result = _build(config, out, workers)
    if json:
        print_json(_result_values(result))
    else:
        _print_result(result)


def _build(config: CorpusConfig, out: Path, workers: int | None) -> CorpusResult:
    import os

    from criadero.cli.corpus_progress import CorpusDisplay
    from criadero.corpus.build import build as build_corpus
    from criadero.corpus.engine.ray_executor import executor_for
    from criadero.train.stop import StopFlag

    tokenizer = None
    if config.mixture.tokenizer is not None:
        from criadero.formats.load import load_tokenizer

        tokenizer = load_tokenizer(config.mixture.tokenizer)
    tasks = executor_for(workers, address=os.environ.get("RAY_ADDRESS") or None)
    with StopFlag().on_signals() as stop, tasks as executor, CorpusDisplay() as display:
        return build_corpus(
            config,
            out,
            executor=executor,
            tokenizer=tokenizer,
            progress=display,
            stop=lambda: stop.requested,
        )


def _result_values(result: CorpusResult) -> dict[str, Any]:
    from criadero.corpus.funnel import funnel_values
    from criadero.corpus.mixture import mixture_values

    return {
        "folder": str(result.folder),
        "key": result.manifest.key,
        "was_finished": result.was_finished,
        **funnel_values(result.funnels),
        "mixture": mixture_values(result.mixture),
    }


def _print_result(result: CorpusResult) -> None:
    from criadero.corpus.mixture import data_sources

    if result.was_finished:
        typer.echo(f"`{result.folder}` is finished already: same recipe, inputs and code\n")
    _print_funnels(result.funnels)
    typer.echo("")
    _print_mixture(result.mixture)
    shards = result.folder / "shards"
    typer.echo(
        f"\ndata card  {result.folder / 'card.md'}\nnext, for each source:\n"
        f"  criadero shards build {result.folder}/documents/SOURCE --source SOURCE --tokenizer TOKENIZER "
        f"--out {shards}/SOURCE\nthen in the training config:\n\n{data_sources(result.mixture, shards)}"
    )


def _print_mixture(mixture: Mixture) -> None:
    from criadero.files import format_bytes

    rows = [
        (
            row.source, f"{100 * row.share:.1f}%", f"{row.epochs:.2f}", format_bytes(row.disk_bytes),
            f"{row.tokens:,}",
        )
        for row in mixture.rows
    ]  # fmt: skip
    _print_table(
        f"Mixture for {mixture.tokens:,} training tokens",
        ("dataset", "sampling prop.", "epochs", "disk size", f"tokens ({mixture.token_count})"),
        rows,
    )


def _print_plan(config: CorpusConfig, *, json: bool) -> None:
    from criadero.corpus.build import plan

    if json:
        print_json({"sources": {planned.source: _plan_values(planned) for planned in plan(config)}})
        return
    _print_papers_sizes(config)  # known before any input is there
    for planned in plan(config):
        values = _plan_values(planned)
        splits = "splits not known yet" if values["splits"] is None else f"{values['splits']:,} splits"
        needs = f", after {', '.join(planned.needs)}" if planned.needs else ""
        typer.echo(f"{planned.source}: {len(planned.inputs):,} inputs, {splits}{needs}")
        typer.echo(f"  {' -> '.join(values['stages']) or 'stages follow from models that are made first'}")


def _print_papers_sizes(config: CorpusConfig) -> None:
    from criadero.corpus.mixture import PAPER_MIXTURE

    rows = [
        (
            name, f"{100 * row.share:.1f}%", f"{row.epochs:.2f}", f"{row.disk_bytes / 1e9:,.0f} GB",
            f"{row.unique_tokens / 1e9:,.0f}B",
        )
        for name, row in PAPER_MIXTURE.items() if name in config.sources
    ]  # fmt: skip
    if rows:
        header = ("dataset", "sampling prop.", "epochs", "disk size", "unique tokens")
        _print_table(
            "For comparison, Table 1 of the LLaMA paper, with the unique tokens that follow from it",
            header,
            rows,
        )


def _plan_values(planned: SourcePlan) -> dict[str, Any]:
    from criadero.corpus.build import count_splits

    known = planned.recipe
    return {
        "inputs": [str(entry) for entry in planned.inputs],
        "needs": list(planned.needs),
        "splits": None if known is None else count_splits(known),
        "stages": [] if known is None else [stage.name for stage in known],
    }


@app.command()
def funnel(
    out: Corpus,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Also draw it.")] = None,
    json: Json = False,
) -> None:
    """Show how many documents and characters each stage let through, and why the others went."""
    from criadero.corpus.funnel import funnel_values, read_funnel

    funnels = read_funnel(out)
    if png is not None:
        from criadero.report.funnel import draw_funnel

        draw_funnel(funnels, png)
    if json:
        print_json(funnel_values(funnels))
    else:
        _print_funnels(funnels)


def _print_funnels(funnels: tuple[SourceFunnel, ...]) -> None:
    rows = []
    for source in funnels:
        for stage in source.stages:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in stage.dropped.items())
            first = source.source if stage is source.stages[0] else ""
            rows.append(
                (first, stage.name, f"{stage.documents_out:,}", f"{stage.characters_out:,}",
                 f"{stage.edited:,}", reasons)
            )  # fmt: skip
        documents = source.documents_out / max(1, source.documents_in)
        characters = source.characters_out / max(1, source.characters_in)
        rows.append(("", "share left", f"{100 * documents:.1f}%", f"{100 * characters:.1f}%", "", ""))
    header = ("source", "stage", "documents", "characters", "edited", "left out")
    _print_table(None, header, rows)


def _print_table(title: str | None, header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, padding=(0, 1, 0, 0))
    for name in header:
        right = name not in {"source", "stage", "dataset", "left out"}
        named = name in {"source", "stage", "dataset"}  # a name or number in two lines cannot be read
        table.add_column(name, justify="right" if right else "left", overflow="fold", no_wrap=named or right)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # nothing is folded in a file or a pipe
    console.print(table)


@app.command()
def explain(
    out: Corpus,
    document: Annotated[str, typer.Argument(metavar="DOC_ID", help="Id of a document or bad record.")],
    json: Json = False,
) -> None:
    """Tell one document's story: what each stage did with it, and why."""
    from criadero.corpus.explain import explain as explain_document
    from criadero.corpus.explain import story_values

    stories = explain_document(out, document)
    if json:
        print_json({"stories": [story_values(story) for story in stories]})
        return
    for story in stories:
        _print_story(story)


def _print_story(story: Story) -> None:
    typer.echo(f"{story.id}, from {story.source}: {story.ending}")
    for row in story.rows:
        size = f"{row.characters_in:,} -> {row.characters_out:,} characters"
        score = "" if row.score is None else f"  score {row.score:g}"
        why = "  ".join(filter(None, (row.reason, row.detail)))
        typer.echo(f"  {row.stage:20} {row.outcome:8} {size}{score}" + (f"  {why}" if why else ""))
    for key, value in (story.metadata or {}).items():
        typer.echo(f"  {key}: {value}")
