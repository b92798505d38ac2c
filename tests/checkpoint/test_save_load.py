"""What is saved comes back bit by bit, at the values of the moment of saving; old checkpoints go."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from criadero import files
from criadero.checkpoint import write
from criadero.checkpoint.config import CheckpointConfig
from criadero.checkpoint.load import checkpoint_at, find_newest_good, load, read_state, read_tensors
from criadero.checkpoint.manifest import read_manifest, step_folder, steps_in
from criadero.checkpoint.save import Checkpointer
from criadero.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("one_rank")
STATE = {"seed": 7, "sample": 2**53 + 1, "learning_rate": 0.1, "rng": [1, 2]}


def save(folder: Path, tensors: dict[str, torch.Tensor], *steps: int, **config: object) -> None:
    with Checkpointer(folder, CheckpointConfig(**config)) as checkpointer:
        for step in steps:
            checkpointer.save(step, tensors, state=STATE, tokens=step * 10, config_sha256="c" * 64)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_tensors_and_state_come_back_bit_by_bit(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    save(tmp_path, tensors, 12)
    path = find_newest_good(tmp_path)
    assert path == tmp_path / "step-00000012"
    empty = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    assert load(path, empty) == STATE == read_state(path)
    read = dict(read_tensors(path))
    for name, tensor in tensors.items():
        assert bits(empty[name]) == bits(tensor) == bits(read[name]), name
        assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
    assert (tmp_path / "latest").read_text() == "step-00000012\n"
    assert dict(read_tensors(path, prefix="model.")).keys() == {"model.weight", "model.special", "model.half"}


def test_the_manifest_says_where_the_run_stood(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    save(tmp_path, tensors, 12)
    manifest = read_manifest(step_folder(tmp_path, 12))
    assert (manifest.step, manifest.tokens, manifest.world_size) == (12, 120, 1)
    assert manifest.config_sha256 == "c" * 64
    assert manifest.tensors["model.half"].dtype == "bfloat16"
    on_disk = {path.name for path in step_folder(tmp_path, 12).iterdir()}
    assert on_disk == {*manifest.files, "manifest.json"}
    assert on_disk - {"manifest.json", "state.json"} == {"shard-00001-model-00001-of-00001.safetensors"}


def test_tensors_are_spread_over_files_of_bounded_size(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(write, "_MAX_FILE_BYTES", 64)
    save(tmp_path, tensors, 1)
    path = checkpoint_at(tmp_path, 1)
    assert len(list(path.glob("shard-*.safetensors"))) > 2
    assert all(bits(value) == bits(tensors[name]) for name, value in read_tensors(path))


def test_the_background_stores_the_values_of_the_moment_of_saving(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    go_on = threading.Event()
    monkeypatch.setattr(files, "on_fault_point", lambda _name: go_on.wait(20))
    expected = {name: bits(tensor) for name, tensor in tensors.items()}
    state = {"list": [1]}
    checkpointer = Checkpointer(tmp_path, CheckpointConfig())
    checkpointer.save(1, tensors, state=state, tokens=0, config_sha256="")
    assert steps_in(tmp_path) == []
    state["list"].append(2)
    for tensor in tensors.values():
        tensor.fill_(9)
    go_on.set()
    assert checkpointer.wait() == 1
    checkpointer.close()
    assert {name: bits(value) for name, value in read_tensors(checkpoint_at(tmp_path, 1))} == expected
    assert read_state(checkpoint_at(tmp_path, 1)) == {"list": [1]}


def test_the_newest_stay_and_those_at_a_multiple(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    save(tmp_path, tensors, *range(1, 12), keep=2, keep_every_steps=4, background=False)
    assert steps_in(tmp_path) == [4, 8, 10, 11]


def test_steps_beyond_the_one_resumed_from_go_once_a_new_one_is_whole(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
):
    save(tmp_path, tensors, 10, 20, 30)
    save(tmp_path, tensors, 25)
    assert steps_in(tmp_path) == [10, 20, 25]


def test_a_step_saved_again_replaces_the_old_one(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    save(tmp_path, tensors, 10)
    tensors["ids"] += 1
    save(tmp_path, tensors, 10)
    assert torch.equal(dict(read_tensors(checkpoint_at(tmp_path, 10)))["ids"], tensors["ids"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000010"]


def test_what_a_killed_process_left_is_tidied_at_the_next_start(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
):
    save(tmp_path, tensors, 10)
    (tmp_path / "step-00000020.tmp-999").mkdir()
    (tmp_path / "step-00000020.tmp-999" / "shard").write_bytes(b"x")
    (tmp_path / "latest.tmp-999").write_bytes(b"x")
    step_folder(tmp_path, 10).rename(tmp_path / "step-00000010.replaced")
    assert find_newest_good(tmp_path) is None
    save(tmp_path, tensors)
    assert find_newest_good(tmp_path) == step_folder(tmp_path, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000010"]


def test_a_missing_step_is_an_error_that_lists_the_others(tmp_path: Path, tensors: dict[str, torch.Tensor]):
    save(tmp_path, tensors, 10, 20)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 15\nhint: steps there: 10, 20"):
        checkpoint_at(tmp_path, 15)
    assert find_newest_good(tmp_path / "nothing here") is None


def test_tensors_of_another_model_are_refused_and_nothing_is_changed(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
):
    save(tmp_path, tensors, 1)
    other = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    other["model.extra"] = torch.zeros(2)
    del other["ids"]
    other["model.weight"] = torch.zeros(3, 5)
    other["model.half"] = other["model.half"].float()
    with pytest.raises(CheckpointError) as refusal:
        load(checkpoint_at(tmp_path, 1), other)
    for fault in (
        "`model.extra` is missing in it",
        "`ids` is in it but not asked for",
        "`model.weight` is [5, 3] float32 in it, expected [3, 5] float32",
        "`model.half` is [20] bfloat16 in it, expected [20] float32",
    ):
        assert fault in str(refusal.value)
    assert not any(tensor.any() for tensor in other.values())


def test_a_state_that_is_not_json_is_refused_before_anything_is_written(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
):
    checkpointer = Checkpointer(tmp_path, CheckpointConfig())
    with pytest.raises(TypeError, match="JSON"):
        checkpointer.save(1, tensors, state={"rng": object()}, tokens=0, config_sha256="")
    checkpointer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_last_save_that_failed_is_an_error_for_who_waits_for_it(
    tmp_path: Path, tensors: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
):
    with Checkpointer(tmp_path, CheckpointConfig()) as checkpointer:
        checkpointer.save(1, tensors, state={}, tokens=0, config_sha256="")
        checkpointer.wait_for(1)
        monkeypatch.setattr(files.shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
        checkpointer.save(2, tensors, state={}, tokens=0, config_sha256="")
        with pytest.raises(CheckpointError, match="step 2 is not in"):
            checkpointer.wait_for(2)
        checkpointer.wait_for(1)
