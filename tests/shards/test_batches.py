"""The stream of batches is one stream: for any ranks, any micro-batch, any point to resume from."""

from __future__ import annotations

import struct
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.config import validate
from criadero.errors import ConfigError, DataError
from criadero.shards.batch import IGNORED, NO_SAMPLE, Batch, document_mask_BTT
from criadero.shards.batches import Batches
from criadero.shards.config import DataConfig
from criadero.shards.describe import describe_step, document_text
from criadero.shards.header import HEADER_BYTES
from criadero.shards.prefetch import Prefetch
from shards.conftest import BuildShards, make_documents
from shards.fake_tokenizer import ByteTokenizer

T = 7


def _config(*folders: Path, weights: tuple[float, ...] = (), **settings_) -> DataConfig:
    sources = [{"name": folder.name, "path": folder} for folder in folders]
    for source, weight in zip(sources, weights, strict=False):
        source["weight"] = weight
    return validate(DataConfig, {"sources": sources, "seq_len": T, **settings_}, where="test")


@pytest.fixture
def folders(build_shards: BuildShards) -> tuple[Path, Path]:
    big = build_shards(make_documents(40, prefix="big"), "big")
    return big, build_shards(make_documents(9, prefix="small"), "small")


@pytest.fixture
def batches(folders: tuple[Path, Path]) -> Batches:
    return Batches(_config(*folders, weights=(0.7, 0.3), seed=5))


def test_targets_are_the_next_tokens_of_the_stored_stream(batches: Batches) -> None:
    batch = batches.batch(3, 5)
    assert batch.tokens_BT.shape == batch.targets_BT.shape == (5, T)
    assert batch.tokens_BT.dtype == batch.targets_BT.dtype == torch.int64
    assert batch.sample_indices == (3, 4, 5, 6, 7)
    assert batch.num_targets == 5 * T
    location = batches.order.locate(np.arange(3, 8))
    for row in range(5):
        shards = batches.sources[location.source[row]].shards
        first = int(location.sequence[row]) * T
        stored = shards.tokens(first, first + T + 1).tolist()
        assert batch.tokens_BT[row].tolist() == stored[:-1]
        assert batch.targets_BT[row].tolist() == stored[1:]


def test_one_epoch_predicts_every_token_once(folders: tuple[Path, Path]) -> None:
    batches = Batches(_config(folders[0]))
    shards, count = batches.sources[0].shards, batches.sources[0].num_sequences
    assert 0 <= shards.num_tokens - 1 - count * T < T  # only a tail shorter than a sequence is left out
    location = batches.order.locate(np.arange(count))
    targets = batches.batch(0, count).targets_BT[np.argsort(location.sequence)]
    assert targets.flatten().tolist() == shards.tokens(1, count * T + 1).tolist()


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 11), st.integers(1, 4), st.integers(1, 5), st.integers(0, 50))
def test_ranks_and_micro_batches_only_cut_the_same_stream(
    shared_batches: Batches, global_count: int, world_size: int, micro_count: int, first: int
) -> None:
    shares = [
        shared_batches.share(
            first, global_count=global_count, rank=rank, world_size=world_size, micro_count=micro_count
        )
        for rank in range(world_size)
    ]
    shapes = [[tuple(batch.tokens_BT.shape) for batch in share] for share in shares]
    assert all(shape == shapes[0] for shape in shapes)
    assert max(rows for rows, _ in shapes[0]) <= micro_count
    rows = [(sample, n, batch) for share in shares for batch in share
            for n, sample in enumerate(batch.sample_indices)]  # fmt: skip
    real = [row for row in rows if row[0] != NO_SAMPLE]
    assert [sample for sample, _, _ in real] == list(range(first, first + global_count))
    whole = shared_batches.batch(first, global_count)
    assert torch.equal(torch.stack([batch.tokens_BT[n] for _, n, batch in real]), whole.tokens_BT)
    assert torch.equal(torch.stack([batch.targets_BT[n] for _, n, batch in real]), whole.targets_BT)
    assert len(rows) - len(real) == -global_count % world_size
    assert all((batch.targets_BT[n] == IGNORED).all() for sample, n, batch in rows if sample == NO_SAMPLE)
    assert sum(batch.num_targets for share in shares for batch in share) == global_count * T


@pytest.fixture(scope="module")
def shared_batches(tmp_path_factory: pytest.TempPathFactory) -> Batches:
    from criadero.shards.config import ShardConfig
    from criadero.shards.write import build

    out = tmp_path_factory.mktemp("shared") / "shards"
    build(make_documents(20), ByteTokenizer(), out, config=ShardConfig(heldout_fraction=0, shard_tokens=300))
    return Batches(_config(out))


def test_resuming_from_the_yielded_state_continues_the_stream(batches: Batches) -> None:
    def tokens(first: int, steps: int) -> tuple[list[torch.Tensor], int]:
        out, state = [], first
        with batches.iterate(first, global_count=4, micro_count=3) as stream:
            for _ in range(steps):
                micro_batches, state = next(stream)
                out += [batch.tokens_BT for batch in micro_batches]
        return out, state

    whole, end = tokens(0, 20)
    first, state = tokens(0, 7)
    second, state = tokens(state, 6)
    third, state = tokens(state, 7)
    assert (state, end) == (80, 80)
    assert all(torch.equal(a, b) for a, b in zip(whole, first + second + third, strict=True))
    assert batches.epochs(80)["small"] != int(batches.epochs(80)["small"])


def test_weights_default_to_sizes_so_that_epochs_end_together(folders: tuple[Path, Path]) -> None:
    batches = Batches(_config(*folders))
    total = sum(source.num_sequences for source in batches.sources)
    assert batches.epochs(3 * total) == {"big": 3.0, "small": 3.0}
    located = batches.order.locate(np.arange(total))
    seen = Counter(zip(located.source.tolist(), located.sequence.tolist(), strict=True))
    assert set(seen.values()) == {1}
    assert len(seen) == total


def test_a_cap_on_epochs_is_checked_before_the_start(folders: tuple[Path, Path]) -> None:
    sources = [
        {"name": "big", "path": folders[0], "weight": 1.0, "max_epochs": 1.0},
        {"name": "small", "path": folders[1], "weight": 9.0, "max_epochs": 2.5},
    ]
    batches = Batches(validate(DataConfig, {"sources": sources, "seq_len": T}, where="test"))
    allowed = int(2.5 * batches.sources[1].num_sequences)
    batches.require_epochs(allowed)
    with pytest.raises(ConfigError, match=r"source `small` would be seen \d\.\d\d times, max_epochs is 2\.5"):
        batches.require_epochs(2 * allowed)


def test_documents_get_numbers_and_positions_from_stored_boundaries(build_shards: BuildShards) -> None:
    # Without BOS and EOS nothing in the tokens tells where a document starts.
    folder = build_shards(make_documents(30, longest=9), "plain", bos=False, eos=False)
    batches = Batches(_config(folder, mask_documents=True))
    shards, count = batches.sources[0].shards, batches.sources[0].num_sequences
    batch = batches.batch(0, count)
    assert batch.document_BT is not None
    assert batch.positions_BT is not None
    several = 0
    for row, sequence in enumerate(batches.order.locate(np.arange(count)).sequence.tolist()):
        documents = [shards.document_at(sequence * T + t) for t in range(T)]
        first = documents[0].index
        assert batch.document_BT[row].tolist() == [document.index - first for document in documents]
        assert batch.positions_BT[row].tolist() == [
            sequence * T + t - max(document.start, sequence * T) for t, document in enumerate(documents)
        ]
        several += documents[-1].index > first
    assert several > 5


def test_the_document_mask_is_causal_within_documents() -> None:
    document_BT = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 2, 2, 2]])
    mask_BTT = document_mask_BTT(document_BT)
    assert mask_BTT.dtype == torch.bool
    for b in range(2):
        for q in range(5):
            for k in range(5):
                expected = k <= q and document_BT[b, q] == document_BT[b, k]
                assert bool(mask_BTT[b, q, k]) == expected


def test_masks_are_absent_unless_asked_for(batches: Batches) -> None:
    batch = batches.batch(0, 2)
    assert batch.document_BT is None
    assert batch.positions_BT is None


def test_padding_rows_can_be_masked_too(folders: tuple[Path, Path]) -> None:
    batches = Batches(_config(folders[0], mask_documents=True))
    (batch,) = batches.share(0, global_count=1, rank=0, world_size=2, micro_count=4)
    assert batch.sample_indices == (NO_SAMPLE,)
    assert batch.num_targets == 0
    assert batch.document_BT is not None
    assert torch.equal(document_mask_BTT(batch.document_BT)[0], torch.ones(T, T).tril().bool())


def _damage(folder: Path, value: int = 60_000) -> None:
    """Put an impossible token id into the middle of a shard, as a broken disk would."""
    path = folder / "train/shard-00001.bin"
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, HEADER_BYTES + 2 * 100, value)
    path.write_bytes(data)


def test_an_impossible_token_reaches_the_consumer_with_shard_offset_and_document(folders) -> None:
    _damage(folders[0])
    batches = Batches(_config(folders[0]))
    words = r"id 60000, outside the vocabulary of 259: token 100 of `.*shard-00001\.bin` \(document 'big-\d+'"
    with batches.iterate(0, global_count=4, micro_count=2) as stream, pytest.raises(DataError, match=words):
        list(stream)


def test_bad_sequences_may_be_left_out_up_to_a_limit(folders: tuple[Path, Path], caplog) -> None:
    _damage(folders[0])
    batches = Batches(_config(folders[0], max_bad_sequences=1))
    count = batches.sources[0].num_sequences
    batch = batches.batch(0, count)
    assert batch.num_targets == (count - 1) * T
    assert "left out: sample" in caplog.text
    assert batch.sample_indices == tuple(range(count))
    batches.batch(0, count)  # the same sample does not count twice
    with pytest.raises(DataError, match="token id 60000"):
        batches.batch(count, count)  # the next epoch meets it as another sample


@pytest.mark.parametrize(
    ("problem", "words"),
    [(ValueError("boom"), "the loader failed: ValueError: boom"), (SystemExit(3), "SystemExit: 3")],
)
def test_any_failure_in_the_thread_reaches_the_consumer(problem: BaseException, words: str) -> None:
    def items():
        yield 1
        raise problem

    with Prefetch(items()) as stream:
        assert next(stream) == 1
        with pytest.raises(DataError, match=words):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)


def test_a_dead_thread_does_not_hang_the_consumer(monkeypatch) -> None:
    monkeypatch.setattr(Prefetch, "_work", lambda self: None)
    with Prefetch(iter([1])) as stream, pytest.raises(DataError, match="died without an error"):
        next(stream)


def test_prefetch_works_ahead_keeps_order_and_ends(monkeypatch) -> None:
    made: list[int] = []

    def items():
        for n in range(9):
            made.append(n)
            yield n

    with Prefetch(items(), depth=2) as stream:
        assert next(stream) == 0
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert made == [0, 1, 2, 3]
        assert list(stream) == list(range(1, 9))


def test_close_ends_the_thread_while_it_waits_for_room(batches: Batches) -> None:
    before = threading.active_count()
    stream = batches.iterate(0, global_count=2, micro_count=2, depth=1)
    next(stream)
    stream.close()
    stream.close()
    assert threading.active_count() == before
    with pytest.raises(StopIteration):
        next(stream)


def test_fingerprints_tell_changed_data_and_changed_shares(folders, build_shards: BuildShards) -> None:
    def fingerprints(*config) -> dict[str, str]:
        return Batches(_config(*config[:2], weights=config[2])).fingerprints

    big, small = folders
    before = fingerprints(big, small, (0.7, 0.3))
    assert fingerprints(big, small, (7.0, 3.0)) == before == fingerprints(small, big, (0.3, 0.7))
    assert fingerprints(big, small, (0.6, 0.4))["big"] != before["big"]
    (small.parent / "other").mkdir()
    changed = make_documents(9, prefix="small")[::-1]
    rebuilt = build_shards(changed, "other/small")
    after = fingerprints(big, rebuilt, (0.7, 0.3))
    assert after["big"] == before["big"]
    assert after["small"] != before["small"]


def test_the_order_in_which_sources_are_listed_does_not_matter(folders: tuple[Path, Path]) -> None:
    forward = Batches(_config(*folders, weights=(0.5, 0.5)))
    backward = Batches(_config(*folders[::-1], weights=(0.5, 0.5)))
    assert torch.equal(forward.batch(0, 50).tokens_BT, backward.batch(0, 50).tokens_BT)


def test_verify_names_the_file_that_changed(folders: tuple[Path, Path]) -> None:
    batches = Batches(_config(*folders))
    batches.verify()
    _damage(folders[0], value=5)
    with pytest.raises(DataError, match=r"big/train/shard-00001\.bin` has changed"):
        batches.verify()


def test_a_deleted_shard_stops_the_start(folders: tuple[Path, Path]) -> None:
    (folders[1] / "train/shard-00000.bin").unlink()
    with pytest.raises(DataError, match=r"small/train/shard-00000\.bin` cannot be read"):
        Batches(_config(*folders))


def test_what_does_not_fit_together_is_refused(folders: tuple[Path, Path], build_shards: BuildShards) -> None:
    other = build_shards(make_documents(9), "other", tokenizer=ByteTokenizer(300))
    with pytest.raises(DataError, match="`big` and `other` have different tokenizers"):
        Batches(_config(folders[0], other))
    with pytest.raises(ConfigError, match="vocabulary of 258 is smaller than the shards' 259"):
        Batches(_config(folders[0]), vocab_size=258)
    assert Batches(_config(folders[0]), vocab_size=320).vocab_size == 259
    with pytest.raises(DataError, match="source `small` is shorter than one training sequence"):
        Batches(_config(*folders).model_copy(update={"seq_len": 600}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"sources": []}, "sources"),
        ({"sources": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "two sources are called a"),
        (
            {"sources": [{"name": "a", "path": "x", "weight": 1}, {"name": "b", "path": "y"}]},
            "without one: b",
        ),
        ({"sources": [{"name": "a", "path": "x", "weight": 0}]}, "weight"),
        ({"sources": [{"name": "a", "path": "x", "wieght": 1}]}, "did you mean `weight`"),
    ],
)
def test_bad_data_configs_are_refused(values: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        validate(DataConfig, values, where="test")


def test_the_text_of_a_past_step_is_exact(folders: tuple[Path, Path]) -> None:
    """All sequences of an epoch, put together in stored order, give back every document."""
    batches = Batches(_config(folders[0], seed=3))
    tokenizer, shards = ByteTokenizer(), batches.sources[0].shards
    count = batches.sources[0].num_sequences
    samples = describe_step(batches, tokenizer, 0, count)
    assert [text.sample for text in samples] == list(range(count))
    texts: dict[str, str] = {}
    for sample in sorted(samples, key=lambda sample: sample.sequence):
        assert sum(passage.num_tokens for passage in sample.passages) == T
        assert (sample.source, sample.epoch, sample.first_token) == ("big", 0, sample.sequence * T)
        for passage in sample.passages:
            texts[passage.document_id] = texts.get(passage.document_id, "") + passage.text
    documents = {document.id: document.text for document in make_documents(40, prefix="big")}
    last = shards.document_at(count * T).id
    assert {key: text for key, text in texts.items() if key != last} == {
        key: text for key, text in documents.items() if key != last
    }
    assert documents[last].startswith(texts[last])
    for index in range(shards.num_documents):
        stored = shards.document(index)
        assert document_text(shards, tokenizer, stored) == documents[stored.id]


def test_a_foreign_tokenizer_is_not_used_to_show_text(batches: Batches) -> None:
    with pytest.raises(DataError, match="was made with the tokenizer"):
        describe_step(batches, ByteTokenizer(300), 0, 1)


def test_batches_are_plain_values(batches: Batches) -> None:
    assert isinstance(batches.batch(0, 1), Batch)
    assert torch.equal(batches.batch(0, 3).tokens_BT, batches.batch(0, 3).tokens_BT)
