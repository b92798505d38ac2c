"""The place of a task, in a file that the driver reads while the task runs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from criadero.corpus.engine.cursor import STARTING, Cursor, Position, look


def test_the_driver_reads_the_record_and_stage_that_were_set(tmp_path: Path):
    path = tmp_path / "place"
    assert look(path) is None
    with closing(Cursor(path)) as cursor:
        assert look(path) == Position(0, STARTING)
        cursor.set(7, 3)
        cursor.publish({"short": 2})
        assert look(path) == Position(7, 3, left_out={"short": 2})
    assert [file.name for file in tmp_path.iterdir()] == ["place"]


def test_another_process_that_begins_the_same_task_does_not_cut_the_file_under_the_first(tmp_path: Path):
    path = tmp_path / "place"
    with closing(Cursor(path)) as first, closing(Cursor(path)) as second:
        first.set(1, 1)
        second.set(2, 2)
        assert (first.place[0], second.place[0]) == (1 << 16 | 1, 2 << 16 | 2)
        assert look(path) == Position(2, 2)
