"""Training data that changed, vanished or holds what it cannot is refused, with the place."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from criadero.errors import DataError
from criadero.runs import read_metrics
from criadero.shards.header import HEADER_BYTES
from criadero.train.config import RunConfig
from criadero.train.loop import train
from tiny_run import EPOCH_STEPS, STEPS, TinyRun

pytestmark = pytest.mark.xdist_group("data")


@pytest.fixture
def shards(tiny: TinyRun, tmp_path: Path) -> Path:
    """A copy of the shards that may be damaged."""
    return shutil.copytree(tiny.shards, tmp_path / "shards")


@pytest.fixture
def resumed(tiny: TinyRun, tmp_path: Path, uncut_folder: Path, shards: Path) -> RunConfig:
    """The config that goes on with a run to a larger budget, its data being the copy."""
    shutil.copytree(uncut_folder, tmp_path / "run")
    source = f'data.sources=[{{name="tiny",path="{shards}"}}]'
    return tiny.run_config(tmp_path, source, steps=STEPS + EPOCH_STEPS)


def test_an_edited_byte_is_found_before_the_run_goes_on(shards: Path, resumed: RunConfig):
    path = shards / "train" / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"`{path}` has changed since it was built: sha256") as problem:
        train(resumed)
    assert "restore the file" in (problem.value.hint or "")


def test_a_damaged_heldout_shard_is_found_before_the_run_goes_on(shards: Path, resumed: RunConfig):
    path = shards / "heldout" / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 20] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"`{path}` has changed"):
        train(resumed)


def test_a_deleted_shard_is_named(shards: Path, resumed: RunConfig):
    path = shards / "train" / "shard-00002.bin"
    path.unlink()
    with pytest.raises(DataError, match=f"`{path}`") as problem:
        train(resumed)
    assert problem.value.hint


def test_other_shards_in_the_same_place_are_refused_by_their_fingerprint(shards: Path, resumed: RunConfig):
    shutil.rmtree(shards / "train")
    shutil.copytree(shards / "heldout", shards / "train")
    with pytest.raises(
        DataError, match="source `tiny` is not what the run began with: fingerprint was"
    ) as problem:
        train(resumed)
    assert "bring the original shards back" in (problem.value.hint or "")


def put_impossible_token(shards: Path, *, at: int) -> None:
    path = shards / "train" / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + 2 * at : HEADER_BYTES + 2 * at + 2] = np.uint16(60000).tobytes()
    path.write_bytes(data)


def test_an_impossible_token_that_nobody_verified_is_named_with_its_place(
    tiny: TinyRun, tmp_path: Path, shards: Path
):
    put_impossible_token(shards, at=37)
    source = f'data.sources=[{{name="tiny",path="{shards}"}}]'
    config = tiny.run_config(tmp_path, source, "data.verify=false", steps=9)
    expected = (
        rf"token id 60000, outside the vocabulary of 300: token 37 of `{shards}/train/shard-00001.bin` "
    )
    with pytest.raises(DataError, match=expected + r"\(document 'tiny-\d+'\)") as problem:
        train(config)
    assert "the shard is damaged" in (problem.value.hint or "")


def test_a_few_such_sequences_may_be_left_out_and_are_said(
    tiny: TinyRun, tmp_path: Path, shards: Path, caplog: pytest.LogCaptureFixture
):
    put_impossible_token(shards, at=37)
    source = f'data.sources=[{{name="tiny",path="{shards}"}}]'
    config = tiny.run_config(tmp_path, source, "data.verify=false", "data.max_bad_sequences=1", steps=9)
    result = train(config)
    assert result.state.tokens == 9 * 128 - 32
    assert "left out: sample" in caplog.text
    lost = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert lost == list(range(1, 10))
