"""The story of a document: every stage in order, how it ended, and help with an id that nothing has."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.ledger_files import LATER, WORKED, write_ledger
from criadero.corpus.explain import explain, story_values
from criadero.errors import DataError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_ledger(tmp_path, "wiki", WORKED)
    write_ledger(tmp_path, "wiki", LATER, file="01-00000")
    (tmp_path / "documents/wiki").mkdir(parents=True)
    metadata = pa.array([[("title", "A")]], pa.map_(pa.string(), pa.string()))
    table = pa.table({"id": ["a"], "text": ["x" * 80], "source": ["wiki"], "metadata": metadata})
    pq.write_table(table, tmp_path / "documents/wiki/part-00000.parquet")
    return tmp_path


def test_a_kept_document_tells_every_stage_and_where_it_is(out: Path) -> None:
    (story,) = explain(out, "a")
    assert [(row.stage, row.outcome, row.characters_out) for row in story.rows] == [
        ("read", "kept", 100),
        ("clean", "edited", 80),
        ("dedup", "kept", 80),
    ]
    assert story.ending == "kept in documents/wiki/part-00000.parquet"
    assert story.metadata == {"title": "A"}


@pytest.mark.parametrize(
    ("document", "stages", "ending"),
    [
        ("b", ["read", "clean", "dedup"], "dropped: too_short"),
        ("c", ["read", "clean"], "dropped: too_short"),
        ("d", ["read", "clean"], "set aside, because stage `clean` failed on it: quarantined"),
        ("e", ["read"], "not read: not_json"),
    ],
)
def test_a_document_left_out_tells_where_and_why(
    out: Path, document: str, stages: list[str], ending: str
) -> None:
    (story,) = explain(out, document)
    assert [row.stage for row in story.rows] == stages
    assert story.ending == ending
    assert story.rows[-1].score == 0.25
    assert story_values(story)["stages"][-1]["detail"].startswith("about ")


def test_an_id_in_two_sources_has_two_stories(out: Path) -> None:
    write_ledger(out, "books", WORKED[:1])
    assert [(story.source, story.ending) for story in explain(out, "a")] == [
        ("books", "no longer in the corpus"),
        ("wiki", "kept in documents/wiki/part-00000.parquet"),
    ]


def test_an_unknown_id_is_an_error_that_names_the_nearest(out: Path) -> None:
    write_ledger(out, "long", [("read", 0, f"en:{n}", "kept", "", 1, 1) for n in (12, 134, 99)])
    with pytest.raises(DataError, match=r"no document 'en:13'[\s\S]*nearest ids are 'en:134', 'en:12'"):
        explain(out, "en:13")


def test_an_id_that_is_no_text_and_a_damaged_ledger_are_errors_in_one_line(out: Path) -> None:
    with pytest.raises(DataError, match="surrogate"):
        explain(out, "\udcff")
    next((out / "ledger").rglob("*.parquet")).write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(DataError, match="cannot be asked"):
        explain(out, "a")


def test_quotes_in_an_id_are_characters_like_others(out: Path) -> None:
    with pytest.raises(DataError, match="no document"):
        explain(out, "x' OR 1=1 --")
