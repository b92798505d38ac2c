"""Whatever is missing, cut, flipped, added or forged in a checkpoint is noticed, named and passed over."""

from __future__ import annotations

import errno
import json
import logging
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from criadero import files
from criadero.checkpoint import manifest as manifests
from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.load import find_newest_good, load, read_tensors, verified_manifest
from criadero.checkpoint.manifest import Slice, tiles
from criadero.checkpoint.save import Checkpointer
from criadero.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("one_rank")
SHARD = "shard-00001-model-00001-of-00001.safetensors"


@pytest.fixture
def folder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """Two good checkpoints, of steps 1 and 2."""
    with Checkpointer(tmp_path, CheckpointConfig(background=False)) as checkpointer:
        for step in (1, 2):
            checkpointer.save(step, tensors, state={"step": step}, tokens=step, config_sha256="")
    return tmp_path


def expect_fallback(folder: Path, reason: str) -> None:
    """The damage to step 2 is given as the reason why step 1 is taken."""
    skipped: list[tuple[str, str]] = []
    found = find_newest_good(folder, on_skip=lambda path, why: skipped.append((path.name, why)))
    assert found == folder / "step-00000001"
    assert [name for name, _ in skipped] == ["step-00000002"]
    assert reason in skipped[0][1], skipped[0][1]


def header_bytes(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


@pytest.mark.parametrize("where", ["0", "7", "8", "header", "half", "last"])
def test_a_truncated_shard_is_named_with_both_sizes(folder: Path, where: str):
    path = folder / "step-00000002" / SHARD
    data = path.read_bytes()
    places = {"header": header_bytes(path), "half": len(data) // 2, "last": len(data) - 1}
    size = places[where] if where in places else int(where)
    path.write_bytes(data[:size])
    expect_fallback(folder, f"`{path}` has {size:,} bytes, expected {len(data):,}")


@pytest.mark.parametrize("name", [SHARD, "state.json", "manifest.json"])
def test_a_flipped_bit_is_noticed_in_every_region_of_every_file(folder: Path, name: str):
    path = folder / "step-00000002" / name
    data = path.read_bytes()
    header = header_bytes(path) if name == SHARD else len(data) // 2
    for place in (0, 4, 9, header // 2, header - 1, header, (header + len(data)) // 2, len(data) - 2):
        flipped = bytearray(data)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        with pytest.raises(CheckpointError, match=name):
            verified_manifest(folder / "step-00000002")
        expect_fallback(folder, str(path))
    path.write_bytes(data)
    assert find_newest_good(folder) == folder / "step-00000002"


@pytest.mark.parametrize("name", [SHARD, "state.json"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / "step-00000002" / name).unlink()
    expect_fallback(folder, f"{name}` is missing")
    with pytest.raises(CheckpointError, match="is missing"):
        next(read_tensors(folder / "step-00000002", verify=False))


def test_without_a_manifest_a_checkpoint_was_never_finished(folder: Path):
    (folder / "step-00000002" / "manifest.json").unlink()
    expect_fallback(folder, "never finished")


def test_when_none_is_whole_nobody_starts_from_zero_unasked(folder: Path):
    for step in (1, 2):
        (folder / f"step-0000000{step}" / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"(?s)none of the 2 checkpoints.*never finished"):
        find_newest_good(folder)


def forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest and give it a fitting hash again, as somebody with intent would."""
    body = json.loads((path / "manifest.json").read_text())
    body.pop("sha256")
    change(body)
    body["sha256"] = manifests._own_hash(body)
    (path / "manifest.json").write_text(json.dumps(body))


def drop_slice(body: dict[str, Any]) -> None:
    body["tensors"]["model.weight"]["slices"] = []


def overlap(body: dict[str, Any]) -> None:
    body["tensors"]["model.weight"]["slices"] *= 2


def enlarge(body: dict[str, Any]) -> None:
    body["tensors"]["model.weight"]["shape"] = [1 << 40, 3]


def list_file(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body["files"].update({name: {"size_bytes": 1, "sha256": "0" * 64}})


FORGERIES = {
    "unknown version": (
        lambda body: body.update(version=7),
        "format version 7, this program reads version 1",
    ),
    "other format": (lambda body: body.update(format="zip"), "is not the manifest of a checkpoint"),
    "slice dropped": (drop_slice, "the 0 slices of tensor `model.weight` do not make up"),
    "slice doubled": (overlap, "the 2 slices of tensor `model.weight` do not make up"),
    "huge shape": (enlarge, "do not make up its shape"),
    "unknown dtype": (
        lambda body: body["tensors"]["ids"].update(dtype="object"),
        "malformed at `tensors.ids.dtype`",
    ),
    "negative size": (lambda body: body["files"]["state.json"].update(size_bytes=-1), "malformed at `files"),
    "unknown key": (lambda body: body.update(code="x"), "malformed at `code`"),
    "path traversal": (list_file("../step-00000001/state.json"), "cannot be part of a checkpoint"),
    "absolute path": (list_file("/etc/passwd.safetensors"), "cannot be part of a checkpoint"),
    "pickle": (list_file(".metadata"), "cannot be part of a checkpoint"),
    "other kind of file": (list_file("weights.pt"), "cannot be part of a checkpoint"),
    "file of a tensor not listed": (lambda body: body["files"].pop(SHARD), "in a file that is not listed"),
    "no state": (lambda body: body["files"].pop("state.json"), "does not list state.json"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_manifest_is_refused(folder: Path, name: str):
    change, reason = FORGERIES[name]
    forge(folder / "step-00000002", change)
    expect_fallback(folder, reason)


def test_a_link_that_leads_out_of_the_folder_is_refused(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
):
    outside = tmp_path_factory.mktemp("outside") / SHARD
    shutil.move(folder / "step-00000002" / SHARD, outside)
    (folder / "step-00000002" / SHARD).symlink_to(outside)
    expect_fallback(folder, "leads out of")


@pytest.mark.parametrize("depth", [10_000])
def test_deeply_nested_json_is_refused(folder: Path, depth: int):
    (folder / "step-00000002" / "manifest.json").write_text("[" * depth + "]" * depth)
    expect_fallback(folder, "manifest.json")


class Marker:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_folder_is_never_opened(
    folder: Path, tmp_path: Path, tensors: dict[str, torch.Tensor]
):
    marker = tmp_path / "code was run"
    path = folder / "step-00000002"
    for name in (".metadata", "__0_0.distcp", "model.pt", "extra.safetensors"):
        (path / name).write_bytes(pickle.dumps(Marker(marker)))
    assert find_newest_good(folder) == path
    load(path, {name: torch.zeros_like(tensor) for name, tensor in tensors.items()})
    dict(read_tensors(path))
    assert not marker.exists()
    (path / SHARD).write_bytes(pickle.dumps(Marker(marker)))
    with pytest.raises(CheckpointError):
        next(read_tensors(path, verify=False))
    assert not marker.exists()


def test_a_shard_of_another_checkpoint_is_noticed_even_without_hashing(folder: Path):
    """Same size, other names inside: sizes alone do not tell, the slices do."""
    path = folder / "step-00000002" / SHARD
    path.write_bytes(path.read_bytes().replace(b"model.special", b"model.exactly"))
    assert find_newest_good(folder, verify=False) == folder / "step-00000002"
    with pytest.raises(CheckpointError, match="not readable"):
        dict(read_tensors(folder / "step-00000002", verify=False))
    expect_fallback(folder, "is damaged")


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """The kernel refuses to write files larger than this: EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fail_at(name: str) -> Callable[[str], None]:
    def full_disk(point: str) -> None:
        if point == name:
            raise OSError(errno.ENOSPC, "No space left on device")

    return full_disk


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "point", ["file limit", "no room", "checkpoint-file-written", "file-written", "folder-written"]
)
def test_a_full_disk_costs_a_checkpoint_and_only_the_third_in_a_row_is_an_error(
    folder: Path,
    tensors: dict[str, torch.Tensor],
    point: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    checkpointer = Checkpointer(folder, CheckpointConfig(background=point == "file limit"))
    before = names_in(folder)
    step = 2

    def save() -> int | None:
        nonlocal step
        step += 1
        checkpointer.save(step, tensors, state={}, tokens=0, config_sha256="")
        return checkpointer.wait()

    def break_disk() -> Any:
        if point == "file limit":
            return small_files(500)
        if point == "no room":
            usage = shutil.disk_usage(folder)._replace(free=1000)
            monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: usage)
        else:
            monkeypatch.setattr(files, "on_fault_point", fail_at(point))
        return monkeypatch.context()

    with caplog.at_level(logging.WARNING, logger="criadero"):
        with break_disk():
            assert save() is None
            assert save() is None
        assert names_in(folder) == before
        assert [record.message for record in caplog.records if "training goes on" in record.message]
        monkeypatch.undo()
        assert save() == 5
        with break_disk():
            assert save() == 5
            assert save() == 5
            with pytest.raises(CheckpointError, match="3 checkpoints in a row failed"):
                save()
    monkeypatch.undo()
    assert find_newest_good(folder) == folder / "step-00000005"
    checkpointer.close()


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], list[Slice]]:
    """A shape and boxes that tile it, by cutting random boxes in two."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    boxes = [Slice("f", (0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 5))):
        box = boxes.pop(draw(st.integers(0, len(boxes) - 1)))
        axis = draw(st.integers(0, len(shape) - 1))
        at = draw(st.integers(0, box.sizes[axis]))
        low, high, rest = list(box.sizes), list(box.offsets), list(box.sizes)
        low[axis], rest[axis], high[axis] = at, box.sizes[axis] - at, box.offsets[axis] + at
        boxes += [Slice("f", box.offsets, tuple(low)), Slice("f", tuple(high), tuple(rest))]
    return shape, draw(st.permutations(boxes))


@given(cuts(), st.data())
def test_boxes_tile_a_tensor_if_and_only_if_each_element_is_covered_once(
    cut: tuple[tuple[int, ...], list[Slice]], data: st.DataObject
):
    shape, boxes = cut
    assert tiles(shape, boxes)
    victim = data.draw(st.integers(0, len(boxes) - 1))
    moved = boxes[victim]._replace(offsets=tuple(data.draw(st.integers(0, 6)) for _ in shape))
    changed = [*boxes[:victim], moved, *boxes[victim + 1 :]]
    count = torch.zeros([n + 12 for n in shape], dtype=torch.int)
    for box in changed:
        count[tuple(slice(o, o + s) for o, s in zip(box.offsets, box.sizes, strict=True))] += 1
    inside = count[tuple(slice(0, n) for n in shape)]
    once = bool((inside == 1).all()) and int(count.sum()) == inside.numel()
    within = all(o + s <= n for b in changed for n, o, s in zip(shape, b.offsets, b.sizes, strict=True))
    assert tiles(shape, changed) == (once and within)
