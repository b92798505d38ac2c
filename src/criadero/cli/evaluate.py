"""`criadero evaluate MODEL --suite TASKS`: the paper's benchmarks, item by item, resumable."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from criadero.cli.generate import Device, Dtype, Model
from criadero.cli.output import Json, PacedDisplay, format_seconds, print_json
from criadero.errors import StoppedEarly

if TYPE_CHECKING:
    from criadero.evaluate.runner import Subject
    from criadero.evaluate.task import Settings, Task


def evaluate(
    model: Model,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TASK.SETTING=VALUE]...", help="Such as openbookqa.answer_context='Answer: '."
        ),
    ] = None,
    suite: Annotated[
        str, typer.Option(help="Suites or benchmarks, separated by commas: llama1, common-sense, mmlu, piqa.")
    ] = "common-sense",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most questions of a benchmark, drawn with --seed. Default: all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Which questions --limit draws.")] = 0,
    data: Annotated[
        Path, typer.Option(help="Folder of benchmarks; what is not there is fetched into it.")
    ] = Path("data/benchmarks"),
    out: Annotated[
        Path | None,
        typer.Option(help="Where results are kept. Default: evaluations/ and the model's name."),
    ] = None,
    cache: Annotated[Path, typer.Option(help="Where downloaded packages are kept.")] = Path(
        ".cache/packages"
    ),
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Ask a model the questions of benchmarks, as the LLaMA paper did; run it again to go on.

    Every answer is kept in the folder of results, with the settings it depends on.
    """
    from criadero.evaluate import runner
    from criadero.evaluate.items import open_benchmarks

    tasks = runner.choose_tasks(suite)
    settings = _settings(tasks, overrides or [])
    files = open_benchmarks(tasks, data, cache=cache, required=suite.replace(" ", "").split(","))
    missing = [task.name for task in tasks if task.name not in files]
    settings = [(task, values) for task, values in settings if task.name in files]
    out = out or Path("evaluations") / model.resolve().name
    subject = _load(model, device=device, dtype=dtype)
    try:
        with EvaluationDisplay() as display:
            results = runner.evaluate(
                subject, settings, files, out, limit=limit, seed=seed, on_progress=display.show
            )
    except KeyboardInterrupt:
        raise StoppedEarly(
            f"stopped; what was answered is in `{out}`", hint="run the same command again to go on"
        ) from None
    if json:
        print_json({"out": str(out), "tasks": results, "missing": missing})
        return
    for name, result in results.items():
        typer.echo(describe_result(name, result))
    typer.echo(f"results of every question: {out}")


def _settings(tasks: list[Task], overrides: list[str]) -> list[tuple[Task, Settings]]:
    """Return the tasks with their settings, after `task.setting=value`."""
    from criadero.config import apply_override
    from criadero.errors import ConfigError
    from criadero.evaluate.runner import settings_of

    given: dict[str, Any] = {}
    for override in overrides:
        apply_override(given, override)
    names = [task.name for task in tasks]
    for name, values in given.items():
        if name not in names or not isinstance(values, dict):
            raise ConfigError(f"`{name}` is set but not evaluated", hint=f"evaluated are {', '.join(names)}")
    return [(task, settings_of(task, given.get(task.name, {}))) for task in tasks]


def _load(path: Path, *, device: str | None, dtype: str | None) -> Subject:
    from criadero.evaluate.runner import Subject, identity_of
    from criadero.generate.load import load_generator

    opened = load_generator(path, device=device, dtype=dtype, keep_quantized=False)
    precision = str(opened.dtype).removeprefix("torch.")
    identity = {**identity_of(path), "dtype": precision, "device": opened.device.type}
    return Subject(opened.generator.model, opened.generator.tokenizer, identity)


def describe_result(name: str, result: dict[str, Any]) -> str:
    """Return a result as one line for people."""
    what = "stereotype" if "stereotype" in result else "accuracy"
    error = f" ± {100 * result['stderr']:.1f}" if result["items"] > 1 else ""
    return f"{name:<18}{what} {100 * result[what]:5.1f}{error}  {result['items']:,} items"


class EvaluationDisplay(PacedDisplay):
    """Used with `with`: questions done and time left, on a terminal in place, elsewhere now and then."""

    def __init__(self) -> None:
        super().__init__(live_seconds=0.1)
        self._task = ""
        self._began = (0.0, 0)  # when, with how many questions done

    def show(self, task: str, done: int, total: int) -> None:
        """Show the progress if what was shown before is old enough, or a task is over."""
        now = time.monotonic()
        if task != self._task:
            self._task, self._began = task, (now, done)
        line = f"{task}: {done:,}/{total:,} questions ({100 * done / total:.0f}%)"
        since, before = self._began
        if before < done < total:
            line += f", {format_seconds((now - since) / (done - before) * (total - done))} left"
        self.show_line(line, always=done == total)
