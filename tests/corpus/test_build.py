"""A corpus from start to end: what is there afterwards, what a second run does, what is refused at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from criadero.corpus.build import CorpusResult, build, plan
from criadero.corpus.config import CorpusConfig, validate_recipe
from criadero.corpus.engine.executor import Inline
from criadero.corpus.manifest import read_manifest
from criadero.corpus.sources import text
from criadero.errors import ConfigError, DataError, RunError, StoppedEarly
from criadero.files import sha256_file
from criadero.runs import RunLock
from criadero.shards.config import ShardConfig
from criadero.shards.write import build_from_files
from shards.fake_tokenizer import ByteTokenizer

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "and", "runs", "away", "again"]


def sentence(seed: int, count: int = 40) -> str:
    return " ".join(
        WORDS[(seed * 7 + n * (seed % 5 + 1)) % len(WORDS)] + str(seed * n % 97) for n in range(count)
    )


def write_jsonl(path: Path, *texts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        "".join(json.dumps({"id": f"{path.stem}-{n}", "text": t}) + "\n" for n, t in enumerate(texts))
    )
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    write_jsonl(raw / "a.jsonl", *(sentence(n) for n in range(10)), sentence(3))
    with (raw / "a.jsonl").open("a") as stream:
        stream.write("broken\n")
    write_jsonl(raw / "b.jsonl", *(sentence(n) for n in range(20, 24)))
    return raw


def recipe(raw: Path, **more: object) -> CorpusConfig:
    values = {
        "sources": {
            "first": {
                "kind": "text",
                "inputs": [str(raw / "a*.jsonl")],
                "near_duplicates": {},
                "licence": "MIT",
            },
            "second": {"kind": "text", "inputs": [str(raw / "b*.jsonl")]},
        },
        "mixture": {"weights": {"first": 3, "second": 1}, "max_epochs": 4},
        **more,
    }
    return validate_recipe(values, where="the test")


def run(config: CorpusConfig, out: Path, **options: object) -> CorpusResult:
    return build(config, out, executor=Inline(), **options)


def content(out: Path) -> dict[str, str]:
    """The hash of every file a corpus consists of."""
    found = [f for f in out.rglob("*") if f.is_file() and f.name not in {"journal.jsonl", "run.lock"}]
    return {str(f.relative_to(out)): sha256_file(f) for f in found}


def test_what_came_in_is_what_came_out_and_what_was_dropped(raw: Path, tmp_path: Path) -> None:
    result = run(recipe(raw), tmp_path / "out")
    first, second = result.funnels
    assert (first.source, first.documents_in, first.documents_out) == ("first", 12, 10)
    assert sum(first.dropped.values()) == 2
    assert first.dropped["not_json"] == 1
    assert (second.documents_in, second.documents_out, second.dropped) == (4, 4, {})
    kept = list(text.read(tmp_path / "out/documents/first"))
    assert [document.text for document in kept] == [sentence(n) for n in range(10)]
    assert {document.source for document in kept} == {"first"}
    manifest = read_manifest(tmp_path / "out")
    assert manifest == result.manifest
    assert manifest.sources["first"].text_bytes == sum(len(sentence(n)) for n in range(10))


def test_the_documents_of_a_source_are_what_shards_are_built_from(raw: Path, tmp_path: Path) -> None:
    run(recipe(raw), tmp_path / "out")
    config = ShardConfig(source="first", heldout_fraction=0)
    shards = build_from_files(
        [tmp_path / "out/documents/first"], ByteTokenizer(), tmp_path / "shards", config=config
    )
    assert shards.splits["train"].num_documents == 10
    assert shards.splits["train"].num_bytes == sum(len(sentence(n)) for n in range(10))


def test_the_manifest_names_every_file_with_its_hash(raw: Path, tmp_path: Path) -> None:
    manifest = run(recipe(raw), tmp_path / "out").manifest
    parts = [p for s in manifest.sources.values() for p in (*s.documents_parts, *s.ledger_parts)]
    for part in (*parts, *manifest.others):
        assert sha256_file(tmp_path / "out" / part.name) == part.sha256
    inputs = [file for source in manifest.sources.values() for file in source.inputs]
    assert {file.name: file.sha256 for file in inputs} == {str(f): sha256_file(f) for f in raw.iterdir()}
    assert {part.name for part in manifest.others} == {"mixture.json", "card.md"}


def test_a_finished_corpus_is_left_alone_and_says_so(raw: Path, tmp_path: Path) -> None:
    assert not run(recipe(raw), tmp_path / "out").was_finished
    before = {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*.parquet")}
    again = run(recipe(raw, engine={"memory_bytes": 1 << 29}), tmp_path / "out")
    assert again.was_finished
    assert {f: f.stat().st_mtime_ns for f in (tmp_path / "out").rglob("*.parquet")} == before


def test_a_changed_recipe_does_again_only_what_it_changes(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(recipe(raw), out)
    before = {f.name: f.stat().st_mtime_ns for f in (out / "documents/first").iterdir()}
    result = run(recipe(raw, mixture={"weights": {"first": 1, "second": 1}}), out)
    assert not result.was_finished
    assert [row.share for row in result.mixture.rows] == [0.5, 0.5]
    assert {f.name: f.stat().st_mtime_ns for f in (out / "documents/first").iterdir()} == before
    write_jsonl(raw / "b.jsonl", sentence(50))
    assert [funnel.documents_in for funnel in run(recipe(raw), out).funnels] == [12, 1]
    assert {f.name: f.stat().st_mtime_ns for f in (out / "documents/first").iterdir()} == before


def test_a_finished_corpus_is_made_again_when_the_benchmarks_have_changed(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    listed = [{"name": "quiz", "items": {"test": 1}}]
    manifest = {"format": "criadero-benchmarks", "version": 1, "benchmarks": listed}
    (tmp_path / "sets/manifest.json").write_text(json.dumps(manifest))
    config = recipe(raw, decontaminate={"benchmarks": str(tmp_path / "sets")}, mixture={})
    for question, left in (("a question that stands nowhere in the corpus at all", 4), (sentence(21), 3)):
        (tmp_path / "sets/quiz.jsonl").write_text(
            json.dumps({"id": "1", "texts": [question], "item": {}}) + "\n"
        )
        result = run(config, tmp_path / "out")
        assert not result.was_finished
        assert result.manifest.sources["second"].documents == left
        tables = {file.name: file.sha256 for file in result.manifest.sources["second"].tables}
        assert tables == {str(tmp_path / "sets/quiz.jsonl"): sha256_file(tmp_path / "sets/quiz.jsonl")}
    assert run(config, tmp_path / "out").was_finished


def test_tokens_are_counted_once_for_the_same_documents(raw: Path, tmp_path: Path) -> None:
    counted: list[str] = []

    class Tokenizer(ByteTokenizer):
        def encode_batch(self, texts):
            counted.extend(texts)
            return super().encode_batch(texts)

    for weight in (1, 2):
        mixture = {"weights": {"first": weight, "second": 1}}
        result = run(recipe(raw, mixture=mixture), tmp_path / "out", tokenizer=Tokenizer())
        assert [row.tokens - row.disk_bytes for row in result.mixture.rows] == [2 * 10, 2 * 4]
    assert len(counted) == 14
    write_jsonl(raw / "b.jsonl", sentence(50))
    run(recipe(raw), tmp_path / "out", tokenizer=Tokenizer())
    assert len(counted) == 15


def test_a_changed_corpus_equals_a_fresh_one(raw: Path, tmp_path: Path) -> None:
    alone = {"first": {"kind": "text", "inputs": [str(raw / "b.jsonl")]}}
    run(recipe(raw), tmp_path / "changed")
    run(recipe(raw, sources=alone, mixture={}), tmp_path / "changed")
    run(recipe(raw, sources=alone, mixture={}), tmp_path / "fresh")
    assert content(tmp_path / "changed") == content(tmp_path / "fresh")


@pytest.mark.parametrize("kind", ["documents", "ledger"])
def test_a_missing_part_is_noticed_and_made_again(raw: Path, tmp_path: Path, kind: str) -> None:
    run(recipe(raw), tmp_path / "out")
    before = content(tmp_path / "out")
    next((tmp_path / "out" / kind / "first").glob("*.parquet")).unlink()
    assert not run(recipe(raw), tmp_path / "out").was_finished
    assert content(tmp_path / "out") == before


def test_a_stopped_build_goes_on_to_the_same_bytes(raw: Path, tmp_path: Path) -> None:
    run(recipe(raw), tmp_path / "whole")
    stopped = 0
    for patience in range(200):
        asked = iter(range(patience))
        try:
            run(recipe(raw), tmp_path / "cut", stop=lambda asked=asked: next(asked, None) is None)
            break
        except StoppedEarly:
            stopped += 1
            assert not (tmp_path / "cut/manifest.json").exists()
    assert stopped
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


def test_everything_that_is_missing_is_named_before_any_work(tmp_path: Path, raw: Path) -> None:
    sources = {
        "one": {"kind": "text", "inputs": [str(raw / "none*.jsonl"), str(tmp_path / "absent")]},
        "two": {"kind": "text", "inputs": [str(raw / "b.jsonl"), str(raw / "gone")]},
    }
    config = recipe(raw, sources=sources, mixture={}, decontaminate={"benchmarks": str(tmp_path / "sets")})
    with pytest.raises(DataError) as caught:
        run(config, tmp_path / "out")
    for missing in ("none*.jsonl", "absent", "gone", "sets"):
        assert missing in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_ids_that_are_not_unique_are_refused_with_a_way_out(tmp_path: Path, raw: Path) -> None:
    (raw / "twice.jsonl").write_text('{"id": "x", "text": "a"}\n{"id": "x", "text": "b"}\n')
    sources = {"one": {"kind": "text", "inputs": [str(raw / "twice.jsonl")]}}
    with pytest.raises(DataError, match=r"several documents with the id 'x'[\s\S]*ids = \"place\""):
        run(recipe(raw, sources=sources, mixture={}), tmp_path / "out")
    sources["one"]["ids"] = "place"
    assert run(recipe(raw, sources=sources, mixture={}), tmp_path / "out").funnels[0].documents_out == 2


def test_what_is_built_already_needs_no_room_again(raw: Path, tmp_path: Path, monkeypatch) -> None:
    needed: list[int] = []
    monkeypatch.setattr("criadero.files.require_free_bytes", lambda out, size, purpose: needed.append(size))
    run(recipe(raw), tmp_path / "out")
    run(recipe(raw, mixture={"weights": {"first": 1, "second": 1}}), tmp_path / "out")
    first, second = needed
    assert second < first <= sum(path.stat().st_size for path in raw.iterdir())


@pytest.mark.parametrize("change", ["grow", "delete"])
@pytest.mark.parametrize("moment", range(1, 9))
def test_an_input_that_changes_during_the_build_is_never_taken_for_what_it_was(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, moment: int
) -> None:
    run(recipe(raw), tmp_path / "whole")
    path, asked = raw / "b.jsonl", iter(range(1, 100))
    before = path.read_bytes()

    def stop() -> bool:
        if next(asked) == moment * 2:
            path.unlink() if change == "delete" else path.write_bytes(before * 2)
        return False

    with pytest.raises((DataError, FileNotFoundError)):
        run(recipe(raw), tmp_path / "out", stop=stop)
    assert not (tmp_path / "out/manifest.json").exists()
    path.write_bytes(before)
    run(recipe(raw), tmp_path / "out")
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_lies_beside_the_inputs_redoes_nothing_be_it_the_corpus_itself(
    tmp_path: Path, raw: Path
) -> None:
    write_jsonl(raw / "b2.jsonl", sentence(30))
    config = recipe(raw)
    out = raw / "corpus"
    before = run(config, out).manifest
    (raw / "notes.bin").write_bytes(b"not among the inputs")
    tasks = (out / "journal.jsonl").read_text().count('{"task"')
    (out / "manifest.json").unlink()
    assert run(config, out).manifest.sources == before.sources
    assert (out / "journal.jsonl").read_text().count('{"task"') == tasks


def test_no_flipped_bit_of_a_finished_part_passes_for_text(tmp_path: Path, raw: Path) -> None:
    run(recipe(raw), tmp_path / "out")
    part = tmp_path / "out/documents/second/part-00000.parquet"
    whole = part.read_bytes()
    expected = list(text.read(part))
    for place in range(0, len(whole), 7):
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        try:
            found = list(text.read(part))
        except DataError:
            continue
        # What is no longer read is an error where it is read for shards; other text must never be.
        assert {document.text for document in found} <= {document.text for document in expected}


def test_what_killed_builds_left_half_written_is_removed_and_a_torn_mixture_made_again(
    raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(recipe(raw), out)
    whole = content(out)
    (out / "mixture.json").write_text((out / "mixture.json").read_text().replace("share", "shape"))
    for name in ("card.md.tmp-1", "quarantine.jsonl.tmp-1"):
        (out / name).write_text("half")
    assert not run(recipe(raw), out).was_finished
    assert content(out) == whole


def test_a_wish_to_stop_is_heard_while_inputs_are_hashed(raw: Path, tmp_path: Path) -> None:
    shown: list[str] = []
    with pytest.raises(StoppedEarly, match="looking at the inputs"):
        run(recipe(raw), tmp_path / "out", stop=lambda: True, progress=shown.append)
    assert not shown


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path: Path, raw: Path) -> None:
    kept = write_jsonl(tmp_path / "home" / "documents" / "thesis" / "chapter.jsonl", "mine")
    with pytest.raises(DataError, match="holds other files than a corpus, such as `documents`"):
        run(recipe(raw), tmp_path / "home")
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == [kept]


def test_two_builds_do_not_write_to_one_folder(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "out/work").mkdir(parents=True)
    other = RunLock(tmp_path / "out/work")
    other.acquire()
    with pytest.raises(RunError, match="is being written by"):
        run(recipe(raw), tmp_path / "out")
    other.release()


class Prepared:
    """Stands for the module of a kind whose model is made from another source."""

    def __init__(self, needed: tuple[str, ...], seen: list[Path] | None = None) -> None:
        self.needed, self.seen = needed, [] if seen is None else seen

    def needs(self, settings: object) -> tuple[str, ...]:
        return self.needed

    def tables(self, settings: object) -> tuple[Path, ...]:
        return ()

    def prepare(self, settings: object, *, finished: dict[str, Path], folder: Path, inputs: object) -> object:
        self.seen += [*finished.values(), folder]
        assert all(list(path.glob("*.parquet")) for path in finished.values())
        return settings


@pytest.fixture
def needing(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    def replace(by_needs: object) -> None:
        monkeypatch.setattr("criadero.corpus.build._needs", by_needs)

    return replace


def test_a_source_that_needs_another_runs_after_it(raw: Path, tmp_path: Path, monkeypatch, needing) -> None:
    seen: list[Path] = []
    needing(lambda config, name: ("second",) if name == "first" else ())
    monkeypatch.setattr("criadero.corpus.build.prepare_module", lambda kind: Prepared(("second",), seen))
    assert [(p.source, p.recipe is None) for p in plan(recipe(raw))] == [("second", False), ("first", True)]
    result = run(recipe(raw), tmp_path / "out")
    assert [funnel.source for funnel in result.funnels] == ["first", "second"]
    assert seen == [tmp_path / "out/documents/second", tmp_path / "out/models/first"]


def test_needs_that_cannot_be_met_are_refused(raw: Path, tmp_path: Path, needing) -> None:
    needing(lambda config, name: ("wikipedia",))
    with pytest.raises(ConfigError, match="needs the source `wikipedia`"):
        plan(recipe(raw))
    needing(lambda config, name: ("second",) if name == "first" else ("first",))
    with pytest.raises(ConfigError, match="in a circle"):
        plan(recipe(raw))
