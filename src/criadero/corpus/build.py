"""From a recipe to a corpus: every source through the engine, then mixture, data card and manifest.

    OUT/documents/SOURCE/part-*.parquet   id, text, source, metadata: what `shards build` reads
    OUT/ledger/SOURCE/*.parquet           what every stage did with every document
    OUT/models/SOURCE/                    models made on the way, if a source needs some
    OUT/mixture.json, OUT/card.md         Table 1 for this corpus, the data card
    OUT/manifest.json                     written last: a folder that has one is whole

Entry points: `plan` for what a recipe would do, `build`. Killed at any moment, the same call goes on. Where
the recipe has changed, what is still valid is used again.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from criadero import files
from criadero.corpus import decontaminate
from criadero.corpus.card import write_card
from criadero.corpus.config import CorpusConfig, own_settings, prepare_module, recipe_module
from criadero.corpus.dedup import minhash
from criadero.corpus.engine.executor import Executor
from criadero.corpus.engine.journal import NAME as JOURNAL_NAME
from criadero.corpus.engine.journal import Journal
from criadero.corpus.engine.progress import OnProgress, Progress
from criadero.corpus.engine.run import QUARANTINE, run_source
from criadero.corpus.engine.stage import Each, Exchange, Read, Recipe
from criadero.corpus.explain import DOCUMENTS_FOLDER
from criadero.corpus.funnel import LEDGER_FOLDER, SourceFunnel, source_funnel
from criadero.corpus.inputs import Input, InputFile, describe_inputs, find_inputs, total_bytes
from criadero.corpus.manifest import (
    MANIFEST_NAME,
    CorpusManifest,
    SourceManifest,
    corpus_key,
    new_manifest,
    part_of,
    parts_of,
    read_manifest,
    recipe_values,
)
from criadero.corpus.mixture import (
    Mixture,
    SourceSize,
    count_tokens,
    measure,
    mix,
    mixture_values,
    read_mixture,
)
from criadero.errors import ConfigError, CriaderoError, DataError, StoppedEarly
from criadero.runs import RunLock
from criadero.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger("criadero")

MIXTURE_NAME, CARD_NAME = "mixture.json", "card.md"
MODELS_FOLDER, WORK_FOLDER = "models", "work"


@dataclass(frozen=True)
class SourcePlan:
    """What a source would do.

    Attributes:
        source: its name.
        inputs: files, folders and URLs its globs match.
        tables: models, word lists and evaluation sets that the recipe names and its stages read.
        needs: sources that are finished before it, because models are made from them.
        recipe: its stages; None where they depend on such models.
    """

    source: str
    inputs: tuple[Input, ...]
    tables: tuple[Path, ...]
    needs: tuple[str, ...]
    recipe: Recipe | None


@dataclass(frozen=True)
class CorpusResult:
    """A finished corpus.

    Attributes:
        folder: where it is.
        manifest: what it consists of.
        mixture: its table.
        funnels: what its stages did, by source in the recipe's order.
        was_finished: nothing had to be done.
    """

    folder: Path
    manifest: CorpusManifest
    mixture: Mixture
    funnels: tuple[SourceFunnel, ...]
    was_finished: bool


def plan(config: CorpusConfig) -> tuple[SourcePlan, ...]:
    """Return what each source would read and do, in the order they run, without doing any of it.

    Raises:
        ConfigError: sources need each other in a circle, or one that is not there.
        DataError: listing every input, model and table that is missing.
    """
    inputs = find_inputs(config)
    plans, faults = [], []
    for name, needs in _in_order(config).items():
        try:
            planned = _plan(config, name, inputs[name], needs)
        except CriaderoError as problem:
            faults.append(f"`sources.{name}`: {problem.message}")
            continue
        faults += [
            f"`sources.{name}`: `{path}` does not exist" for path in planned.tables if not path.exists()
        ]
        plans.append(planned)
    if faults:
        raise DataError("the recipe cannot be run:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return tuple(plans)


def build(
    config: CorpusConfig,
    out: Path,
    *,
    executor: Executor,
    tokenizer: Tokenizer | None = None,
    progress: OnProgress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> CorpusResult:
    """Make the corpus, or what is still missing of it.

    Args:
        out: the folder; made if needed.
        executor: where the tasks run.
        tokenizer: what tokens of the mixture are counted with.
        progress: called every now and then.
        stop: asked often; True ends the build early, and the same call goes on.

    Raises:
        ConfigError, DataError: the recipe cannot be run (`plan`), its mixture cannot be drawn (`mix`), ids
            are not unique, or `out` holds something else.
        ResourceError: not enough disk or memory.
        RunError: another process is writing `out`.
        StoppedEarly: `stop` said so.
    """
    plans = plan(config)
    _refuse_foreign_folder(out)
    files.require_writable_folder(out / WORK_FOLDER)
    with RunLock(out / WORK_FOLDER):  # the engine has the one of `out`, for one source at a time
        described, tables = _described(out, plans, progress, stop)
        counted_with = None if tokenizer is None else tokenizer.sha256
        key = corpus_key(recipe_values(config), described, tables, counted_with)
        if (finished := _finished(out, key)) is not None:
            return _result(out, finished, was_finished=True)
        needed_bytes = total_bytes(plan.inputs for plan in plans) - files.folder_bytes(out)
        files.require_free_bytes(out, needed_bytes, purpose="building the corpus")
        _clear(out, plans)
        work = _Work(config, out, executor, tokenizer, progress, stop)
        sources = {p.source: work.run(p, described[p.source], tables[p.source]) for p in plans}
        if _described(out, plans, progress, stop) != (described, tables):
            raise DataError(
                "an input changed while the corpus was built",
                hint="run the same command again once they stay as they are; what is done is not done again",
            )
        return work.finish(key, {name: sources[name] for name in config.sources})


def _refuse_foreign_folder(out: Path) -> None:
    """Check that what is in `out` is a corpus: `_clear` takes away folders that are not in the recipe."""
    known = (out / JOURNAL_NAME).is_file() or (out / MANIFEST_NAME).is_file()
    others = [path.name for path in out.iterdir() if path.name != WORK_FOLDER] if out.is_dir() else []
    if others and not known:
        raise DataError(
            f"`{out}` holds other files than a corpus, such as `{min(others)}`",
            hint="choose an output folder that is empty or does not exist yet",
        )


def _described(
    out: Path, plans: Sequence[SourcePlan], progress: OnProgress | None, stop: Callable[[], bool]
) -> tuple[dict[str, tuple[InputFile, ...]], dict[str, tuple[InputFile, ...]]]:
    """Return inputs and tables of every source with their hashes, which takes long the first time."""

    def tick() -> None:
        if stop():
            raise StoppedEarly(
                "stopped while looking at the inputs", hint="run the same command again to go on"
            )
        if progress is not None:
            progress(Progress("inputs", "", 0, 0, 0, 0.0, None, Counter()))

    with closing(Journal(out)) as journal:
        inputs = {planned.source: planned.inputs for planned in plans}
        tables = {planned.source: planned.tables for planned in plans}
        described = describe_inputs(inputs, journal, tick=tick)
        return described, describe_inputs(tables, journal, tick=tick)


def _finished(out: Path, key: str) -> CorpusManifest | None:
    """Return the manifest if the folder is this very corpus, whole."""
    try:
        manifest = read_manifest(out)
        read_mixture(out / MIXTURE_NAME)
    except DataError:
        return None
    parts = [p for s in manifest.sources.values() for p in (*s.documents_parts, *s.ledger_parts)]
    whole = all(_has_size(out / part.name, part.size_bytes) for part in (*parts, *manifest.others))
    return manifest if manifest.key == key and whole else None


def _has_size(path: Path, size_bytes: int) -> bool:
    return path.is_file() and path.stat().st_size == size_bytes


def _clear(out: Path, plans: Sequence[SourcePlan]) -> None:
    """Take away what says the folder is whole, what is written anew, and sources no longer in the recipe."""
    files.remove_leftovers(out)
    for name in (MANIFEST_NAME, MIXTURE_NAME, CARD_NAME, QUARANTINE):
        (out / name).unlink(missing_ok=True)
    everything = {planned.source for planned in plans}
    with_models = {planned.source for planned in plans if planned.needs}
    for kind in (DOCUMENTS_FOLDER, LEDGER_FOLDER, MODELS_FOLDER):
        for folder in (out / kind).glob("*"):
            if folder.is_dir() and folder.name not in (with_models if kind == MODELS_FOLDER else everything):
                logger.info("`%s` is not in the recipe any more: removed", folder)
                shutil.rmtree(folder)


def _in_order(config: CorpusConfig) -> dict[str, tuple[str, ...]]:
    """Return the sources with what each needs, those needed first, else in the recipe's order."""
    needs = {name: _needs(config, name) for name in config.sources}
    if absent := sorted({other for found in needs.values() for other in found} - set(needs)):
        raise ConfigError(
            f"the recipe needs the source `{absent[0]}`, which it does not have",
            hint="models are trained on it: add it, name another source, or give the path of a model",
        )
    order: dict[str, tuple[str, ...]] = {}
    while len(order) < len(needs):
        ready = [name for name, found in needs.items() if name not in order and set(found) <= set(order)]
        if not ready:
            raise ConfigError(f"sources need each other in a circle: {', '.join(set(needs) - set(order))}")
        order[ready[0]] = needs[ready[0]]
    return order


def _needs(config: CorpusConfig, name: str) -> tuple[str, ...]:
    source = config.sources[name]
    prepared = prepare_module(source.kind)
    return () if prepared is None else tuple(prepared.needs(own_settings(source)))


def _plan(config: CorpusConfig, name: str, inputs: tuple[Input, ...], needs: tuple[str, ...]) -> SourcePlan:
    source = config.sources[name]
    settings = own_settings(source)
    recipe = None if needs else _recipe(config, name, inputs, settings)
    named = prepare_module(source.kind).tables(settings) if needs else ()
    stages = _stages_of_any(config, name) if recipe is None else recipe
    used = (file for stage in stages if isinstance(stage, Each | Exchange) for file in stage.files)
    return SourcePlan(name, inputs, tuple(dict.fromkeys((*named, *used))), needs, recipe)


def _recipe(config: CorpusConfig, name: str, inputs: tuple[Input, ...], settings: Any) -> Recipe:
    """Return the stages of the source's kind and those that any source can have."""
    own: Recipe = recipe_module(config.sources[name].kind).stages(settings, source=name, inputs=inputs)
    return (*own, *_stages_of_any(config, name))


def _stages_of_any(config: CorpusConfig, name: str) -> Recipe:
    near_duplicates = config.sources[name].near_duplicates
    return (
        *(() if near_duplicates is None else (minhash.stage(near_duplicates),)),
        *(() if config.decontaminate is None else (decontaminate.stage(config.decontaminate),)),
    )


def count_splits(recipe: Recipe) -> int:
    """Return how many tasks read the recipe's input."""
    return sum(len(stage.splits) for stage in recipe if isinstance(stage, Read))


@dataclass(frozen=True)
class _Work:
    """One build: what it is for and where it goes."""

    config: CorpusConfig
    out: Path
    executor: Executor
    tokenizer: Tokenizer | None
    progress: OnProgress | None
    stop: Callable[[], bool]

    def run(
        self, planned: SourcePlan, inputs: tuple[InputFile, ...], tables: tuple[InputFile, ...]
    ) -> SourceManifest:
        """Run one source and return what came of it."""
        name = planned.source
        recipe = planned.recipe or self._prepared_recipe(planned)
        run_source(
            name, recipe, self.out,
            executor=self.executor, settings=self.config.engine, progress=self.progress, stop=self.stop,
        )  # fmt: skip
        folder = self.out / DOCUMENTS_FOLDER / name
        funnel, (documents, text_bytes) = source_funnel(self.out, name), measure(folder)
        if funnel.documents_out != documents:
            raise DataError(
                f"`{folder}` holds {documents:,} documents, by the ledger it should be "
                f"{funnel.documents_out:,}",
                hint=f"remove `{self.out}` and build again",
            )
        _refuse_equal_ids(folder, self.config.engine.memory_bytes, scratch=self.out / WORK_FOLDER / "ids")
        return SourceManifest(
            kind=self.config.sources[name].kind,
            inputs=inputs,
            tables=tables,
            stages=funnel.stages,
            documents=documents,
            text_bytes=text_bytes,
            documents_parts=parts_of(self.out, folder),
            ledger_parts=parts_of(self.out, self.out / LEDGER_FOLDER / name),
        )

    def _prepared_recipe(self, planned: SourcePlan) -> Recipe:
        """Make the models the source needs from finished ones, then its recipe."""
        name = planned.source
        source = self.config.sources[name]
        finished = {other: self.out / DOCUMENTS_FOLDER / other for other in planned.needs}
        folder = self.out / MODELS_FOLDER / name
        settings = prepare_module(source.kind).prepare(
            own_settings(source), finished=finished, folder=folder, inputs=planned.inputs
        )
        return _recipe(self.config, name, planned.inputs, settings)

    def finish(self, key: str, sources: dict[str, SourceManifest]) -> CorpusResult:
        """Write mixture, card and, last, the manifest."""
        mixture = mix([self._size(name, source) for name, source in sources.items()], self.config.mixture)
        files.write_json(self.out / MIXTURE_NAME, mixture_values(mixture))
        manifest = new_manifest(self.config, key, sources, ())
        write_card(self.out, self.out / CARD_NAME, self.config, manifest, mixture)
        models = sorted(path for path in (self.out / MODELS_FOLDER).rglob("*") if path.is_file())
        written = [self.out / name for name in (MIXTURE_NAME, CARD_NAME, QUARANTINE)]
        others = tuple(part_of(self.out, path) for path in (*written, *models) if path.exists())
        manifest = manifest.model_copy(update={"others": others})
        files.write_json(self.out / MANIFEST_NAME, manifest.model_dump(mode="json"))
        return _result(self.out, manifest, was_finished=False)

    def _size(self, name: str, source: SourceManifest) -> SourceSize:
        return SourceSize(name, source.documents, source.text_bytes, self._tokens(name, source))

    def _tokens(self, name: str, source: SourceManifest) -> int | None:
        """Return the tokens of a source; of documents that were counted before, what it was then."""
        if self.tokenizer is None:
            return None
        if not source.documents:
            return 0
        counted = [self.tokenizer.sha256, *(part.sha256 for part in source.documents_parts)]
        path = self.out / WORK_FOLDER / f"{name}.tokens.json"
        before = files.read_json(path) if path.exists() else {}
        if before.get("of") == counted:
            return int(before["tokens"])
        logger.info("counting the tokens of %s", name)
        tokens = count_tokens(self.out / DOCUMENTS_FOLDER / name, self.tokenizer, tick=self._tick)
        files.write_json(path, {"of": counted, "tokens": tokens})
        return tokens

    def _tick(self) -> None:
        if self.stop():
            raise StoppedEarly("stopped while counting tokens", hint="run the same command again to go on")


def _result(out: Path, manifest: CorpusManifest, *, was_finished: bool) -> CorpusResult:
    funnels = (SourceFunnel(name, source.stages) for name, source in manifest.sources.items())
    return CorpusResult(out, manifest, read_mixture(out / MIXTURE_NAME), tuple(funnels), was_finished)


def _refuse_equal_ids(folder: Path, memory_bytes: int, *, scratch: Path) -> None:
    """Check that the ids of a source are unique: shards, ledger and held-out split go by them."""
    import duckdb

    paths = [str(path) for path in sorted(folder.glob("*.parquet"))]
    query = "SELECT id FROM read_parquet(?) GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 3"
    limits = {"memory_limit": f"{memory_bytes}B", "temp_directory": str(scratch)}
    with duckdb.connect(config=limits) as database:
        twice = database.execute(query, [paths]).fetchall() if paths else []
    if twice:
        raise DataError(
            f"`{folder.name}` has several documents with the id {', '.join(repr(row[0]) for row in twice)}",
            hint='ids must be unique in a source; `ids = "place"` names those of kind `text` by their place',
        )
