"""Lines outlive their session, in a file that is small, private and shared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from criadero.cli import line_history
from criadero.cli.line_history import LineHistory, history_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "criadero" / "history"


def test_lines_come_back_in_their_order_without_blanks_and_repeats(path: Path) -> None:
    history = LineHistory(path)
    assert [history.add(line) for line in ("ä", "ä", " ", "two\nlines", "ä")] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert LineHistory(path).lines == ["ä", "two\nlines", "ä"]


def test_the_file_is_nobody_else_s_to_read(path: Path) -> None:
    LineHistory(path).add("secret")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    LineHistory(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_two_sessions_at_once_lose_nothing(path: Path) -> None:
    one, two = LineHistory(path), LineHistory(path)
    for line in ("a", "b"):
        one.add(line)
        two.add(line + line)
    assert LineHistory(path).lines == ["a", "aa", "b", "bb"]


def test_the_file_stays_small(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_history, "MAX_LINES", 3)
    history = LineHistory(path)
    for number in range(9):
        history.add(f"line {number}")
    assert not history.add("x" * 5000)
    assert LineHistory(path).lines == ["line 6", "line 7", "line 8"]
    assert len(path.read_text().splitlines()) == 3


def test_damage_costs_only_the_damaged_lines(path: Path) -> None:
    LineHistory(path).add("good")
    with path.open("ab") as stream:
        stream.write(b"\xff\xfe\n{\n3\n" + b"[" * 100_000 + b'\n"half')
    assert LineHistory(path).lines == ["good"]


def test_a_file_that_cannot_be_written_is_said_and_nothing_more(tmp_path: Path, caplog) -> None:
    (tmp_path / "file").write_text("not a folder")
    history = LineHistory(tmp_path / "file" / "history")
    assert history.add("kept for this session")
    assert history.lines == ["kept for this session"]
    assert "history of lines is not kept" in caplog.text


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(json.dumps("elsewhere"))
    (tmp_path / "history").symlink_to(target)
    history = LineHistory(tmp_path / "history")
    history.add("mine")
    assert target.read_text() == json.dumps("elsewhere")


def test_the_file_is_in_the_folder_for_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_path() == tmp_path / "criadero" / "chat-history.jsonl"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")  # to be ignored, says the specification
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_path() == tmp_path / ".local/state/criadero/chat-history.jsonl"
