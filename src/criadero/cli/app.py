"""The `criadero` program: registers the verbs and turns errors into messages and exit codes.

Exit codes: 0 done, 1 failed, 2 usage, 75 stopped early with everything saved.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from criadero import __version__
from criadero.cli import (
    benchmarks,
    chat,
    corpus,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    import_,
    ngram,
    perplexity,
    quantize,
    runs,
    samples,
    serve,
    shards,
    tokenizer,
    train,
)
from criadero.cli.output import set_up_logging
from criadero.errors import CriaderoError, StoppedEarly

app = typer.Typer(
    name="criadero",
    help="Raise your own LLaMA: data -> corpus -> tokenizer -> shards -> training -> evaluation, generation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"criadero {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings only.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    set_up_logging(quiet=quiet)


app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("runs")(runs.runs)
app.add_typer(corpus.app, name="corpus")
app.add_typer(samples.app, name="samples")
app.add_typer(benchmarks.app, name="benchmarks")
app.add_typer(ngram.app, name="ngram")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(shards.app, name="shards")
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.command("chat")(chat.chat)
app.command("serve")(serve.serve)
app.command("import")(import_.import_)
app.command("export")(export.export)
app.command("quantize")(quantize.quantize)
app.command("evaluate")(evaluate.evaluate)
app.command("perplexity")(perplexity.perplexity)


class _Terminated(BaseException):
    """SIGTERM, on its way out through everything that tidies up after itself."""


def _terminate(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise _Terminated


def main() -> None:
    """Run the program; the entry point of `criadero` and `python -m criadero`.

    On SIGTERM half-written output is removed and the exit code is that of `StoppedEarly`; verbs that can save
    their work put a handler of their own in place.
    """
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except _Terminated:
        typer.echo("error: stopped before it was done\nhint: run the same command again", err=True)
        sys.exit(StoppedEarly.exit_code)
    except CriaderoError as problem:
        if "--debug" in sys.argv:
            raise
        mark = "" if isinstance(problem, StoppedEarly) else "error: "  # a wish granted is no error
        typer.echo(f"{mark}{problem}", err=True)
        sys.exit(problem.exit_code)
    except BrokenPipeError:
        # The reader of our stdout has left (`| head`); that is its right.
        sys.stderr.close()
        sys.exit(1)
    except OSError as problem:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {problem}", err=True)
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, previous)
