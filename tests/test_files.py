"""Files are whole or absent, names from outside stay inside, and sizes are bounded."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero import files
from criadero.errors import CheckpointError, DataError, ResourceError, RunError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def fail_after(done: object, problem: type[BaseException]) -> None:
    raise problem


def test_a_written_file_has_its_content_and_nothing_lies_beside_it(tmp_path: Path):
    with files.atomic_write(tmp_path / "a") as stream:
        stream.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path, problem):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(problem), files.atomic_write(tmp_path / "a") as stream:
        fail_after(stream.write(b"half"), problem)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("moment", ["file-written", "file-synced"])
def test_an_error_just_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch, moment: str):
    def fail(name: str) -> None:
        if name == moment:
            raise OSError(28, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(files, "on_fault_point", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_file_is_synced_before_it_gets_its_name_and_its_folder_after(tmp_path: Path, monkeypatch):
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def log_fsync(descriptor: int) -> None:
        order.append("folder" if os.readlink(f"/proc/self/fd/{descriptor}") == str(tmp_path) else "file")
        fsync(descriptor)

    def log_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", log_fsync)
    monkeypatch.setattr(Path, "replace", log_replace)
    files.write_text(tmp_path / "a", "x")
    assert order == ["file", "rename", "folder"]


def test_a_folder_appears_whole(tmp_path: Path):
    final = tmp_path / "deep" / "out"
    with files.atomic_folder(final) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("x")
        assert not final.exists()
    assert names(final) == ["a", "sub"]
    assert names(final.parent) == ["a", "out", "sub"]


def test_every_file_and_folder_in_it_is_synced_before_the_rename(tmp_path: Path, monkeypatch):
    synced: list[str] = []
    fsync = os.fsync

    def log_fsync(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", log_fsync)
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("x")
    assert set(synced[:-2]) == {"sub", "a"}
    assert synced[-2:] == [folder.name, tmp_path.name]


def test_an_error_leaves_no_folder(tmp_path: Path):
    with pytest.raises(KeyError), files.atomic_folder(tmp_path / "out") as folder:
        fail_after((folder / "a").write_text("x"), KeyError)
    assert names(tmp_path) == []


def test_an_existing_folder_is_refused_untouched(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(RunError, match="exists already"), files.atomic_folder(tmp_path / "out"):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["mine", "out"]


def test_what_a_killed_process_of_the_same_number_left_does_not_get_into_a_folder(tmp_path: Path):
    """Process ids come back, in containers at every start."""
    leftover = files.temporary_path(tmp_path / "out")
    leftover.mkdir()
    (leftover / "half").write_text("x")
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "whole").write_text("y")
    assert names(tmp_path) == ["out", "whole"]


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path):
    (tmp_path / "keep.json").write_text("{}")
    (tmp_path / "status.json.tmp-123").write_text("{")
    (tmp_path / "model.tmp-7").mkdir()
    (tmp_path / "model.tmp-7" / "part").write_text("")
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == ["keep.json"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)


@given(value=JSON)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


def test_a_json_file_larger_than_allowed_is_not_read(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text(json.dumps("x" * 98))
    assert files.read_json(path, max_bytes=100) == "x" * 98
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("must not be read"))
    with pytest.raises(DataError, match=r"has 100 bytes, more than the 99 allowed"):
        files.read_json(path, max_bytes=99)


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe\x00", b"[" * 100_000, b'{"a": 1} x'])
def test_what_is_not_json_is_the_callers_error(tmp_path: Path, content: bytes):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match="not readable JSON"):
        files.read_json(tmp_path / "a.json", error=CheckpointError)


def test_a_missing_json_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"nothing\.json` does not exist"):
        files.read_json(tmp_path / "nothing.json")
    with pytest.raises(DataError, match="not readable"):
        files.read_json(tmp_path)


def test_hashes_are_sha256(tmp_path: Path):
    data = os.urandom(300_000)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256_file(tmp_path / "a") == files.sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_the_size_of_a_folder_counts_all_its_files_and_a_missing_one_is_empty(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(bytes(10))
    (tmp_path / "a" / "b" / "y").write_bytes(bytes(7))
    assert files.folder_bytes(tmp_path / "a") == 17
    assert files.folder_bytes(tmp_path / "nothing") == 0


def test_too_little_room_says_how_much_is_needed_where_and_how_much_is_free(tmp_path: Path, monkeypatch):
    asked: list[Path] = []

    def usage(path: Path):
        asked.append(path)
        return type("Usage", (), {"free": 2_500_000})

    monkeypatch.setattr(files.shutil, "disk_usage", usage)
    folder = tmp_path / "not" / "yet"
    files.require_free_bytes(folder, 2_500_000, purpose="the run")
    with pytest.raises(ResourceError) as problem:
        files.require_free_bytes(folder, 2_600_000, purpose="the run")
    assert problem.value.message == f"the run needs 2.6 MB in `{folder}`, 2.5 MB are free"
    assert "another disk" in problem.value.hint
    assert asked == [tmp_path, tmp_path]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        files.require_writable_folder(tmp_path / "file" / "run")
    with pytest.raises(RunError, match="cannot be written: embedded null byte"):
        files.require_writable_folder(tmp_path / "a\0b")
    files.require_writable_folder(tmp_path / "new" / "run")
    assert names(tmp_path / "new") == ["run"]


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a\0b", "a/../..", "\ud800", "./", "a/.."],
)
def test_a_name_that_leads_out_of_the_folder_or_to_it_is_refused(tmp_path: Path, name: str):
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="file name"):
        files.safe_join(folder, name)


def test_a_symbolic_link_does_not_lead_out(tmp_path: Path):
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "link").symlink_to(outside)
    for name in ("link", "link/x"):
        with pytest.raises(DataError, match="file name"):
            files.safe_join(folder, name)


def test_ordinary_names_are_joined_also_below_a_link_to_the_folder(tmp_path: Path):
    folder, link = tmp_path / "in", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    assert files.safe_join(folder, "a/b.safetensors") == folder / "a" / "b.safetensors"
    assert files.safe_join(folder, "..a") == folder / "..a"
    assert files.safe_join(link, "a") == link / "a"


PARTS = st.lists(
    st.sampled_from(["..", ".", "", "a", "sub", "link", "loop", "/", "b\0", "~", "c" * 300]) | st.text(),
    max_size=5,
)


@given(parts=PARTS)
def test_whatever_the_name_the_path_is_inside_or_refused(tmp_path_factory: pytest.TempPathFactory, parts):
    folder = tmp_path_factory.getbasetemp() / "jail"
    (folder / "sub").mkdir(parents=True, exist_ok=True)
    if not (folder / "link").is_symlink():
        (folder / "link").symlink_to("/")
        (folder / "loop").symlink_to(folder / "loop")
    try:
        joined = files.safe_join(folder, "/".join(parts))
    except DataError:
        return
    assert os.path.realpath(joined).startswith(os.path.realpath(folder) + "/")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (3_140_000_000, "3.1 GB"),
        (5e12, "5.0 TB"),
        (2e15, "2.0 PB"),
    ],
)
def test_sizes_for_people(size_bytes: float, text: str):
    assert files.format_bytes(size_bytes) == text


def test_a_folder_that_cannot_be_made_and_a_full_disk_are_errors_of_ours(tmp_path: Path):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "out"
    with pytest.raises(RunError, match="cannot be written: Not a directory"), files.atomic_folder(inside):
        pytest.fail("there is no such folder")
    full = "could not be written: No space left"
    with pytest.raises(ResourceError, match=full), files.atomic_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == ["file"]
