"""The cache gives back what was stored, shares what is equal, and no block has two writers."""

import random

import pytest
import torch

from criadero.errors import ResourceError
from criadero.generate.decode import TorchDecoder, prefill
from criadero.generate.kv_cache import BLOCK_TOKENS, BlockTable, PagedCache, block_bytes, blocks_for
from criadero.model.config import ModelConfig
from generate.tiny_model import tiny_model

NARROW = ModelConfig(
    vocab_size=8, dim=2, num_layers=2, num_heads=1, num_kv_heads=1, head_dim=2, hidden_dim=2, max_seq_len=512
)


def narrow_cache(num_blocks: int) -> PagedCache:
    return PagedCache(NARROW, num_blocks=num_blocks, dtype=torch.float32)


def what_position_holds(ids: list[int], position: int) -> float:
    """A number that stands for the key of a position: it depends on all tokens up to it."""
    return float(hash(tuple(ids[: position + 1])) % 2**20)


class Writer:
    """A sequence that writes into a cache what `read_wrong` can check."""

    def __init__(self, cache: PagedCache, ids: list[int]) -> None:
        self.cache, self.ids = cache, ids
        self.table, covered = cache.find(ids)
        self.computed = min(covered, len(ids) - 1)

    def write(self, others: list["Writer"]) -> bool:
        """Write all that is not there yet; False without room."""
        if not self.cache.reserve(self.table, self.computed, len(self.ids)):
            return False
        first = self.computed // BLOCK_TOKENS
        mine = set(self.table.blocks[first:])
        assert 0 not in mine
        assert not any(mine & set(other.table.blocks) for other in others if other is not self)
        for position in range(self.computed, len(self.ids)):
            block, slot = self.table.blocks[position // BLOCK_TOKENS], position % BLOCK_TOKENS
            self.cache.keys[:, block, :, slot] = what_position_holds(self.ids, position)
            self.cache.values[:, block, :, slot] = -what_position_holds(self.ids, position)
        self.computed = len(self.ids)
        self.cache.know(self.table, self.ids, partial=True)
        return True

    def assert_intact(self) -> None:
        blocks = self.table.blocks
        assert len(blocks) == blocks_for(self.computed)
        stored = self.cache.keys[1, blocks, 0, :, 0].flatten()[: self.computed].tolist()
        assert stored == [what_position_holds(self.ids, p) for p in range(self.computed)]
        assert (self.cache.values[0, blocks, 0, :, 1].flatten()[: self.computed]).neg().tolist() == stored


@pytest.mark.parametrize("seed", range(12))
def test_no_block_has_two_writers_and_none_is_lost_whatever_happens(seed):
    chance = random.Random(seed)
    cache = narrow_cache(chance.choice([4, 9, 20]))
    writers: list[Writer] = []
    found = copied = refused = 0
    for _ in range(150):
        action = chance.random()
        if action < 0.35:  # a new one: of its own, a beginning of another, or the same as another
            base = chance.choice(writers).ids if writers and chance.random() < 0.7 else []
            kept = base[: chance.choice([len(base), chance.randint(0, len(base))])]
            more = 0 if kept and chance.random() < 0.5 else chance.randint(1, 70)
            writer = Writer(cache, [*kept, *(chance.randrange(2) for _ in range(more))])
            found += writer.computed > 0
        elif action < 0.75 and writers:  # one goes on
            writer = chance.choice(writers)
            writer.ids = [*writer.ids, *(chance.randrange(2) for _ in range(chance.randint(1, 9)))]
        elif writers:
            leaving = writers.pop(chance.randrange(len(writers)))
            (cache.wipe if chance.random() < 0.2 else cache.free)(leaving.table)
            assert leaving.table == BlockTable()
            cache.check([w.table for w in writers])
            continue
        else:
            continue
        before = list(writer.table.blocks)
        if writer.write(writers):
            copied += before != writer.table.blocks[: len(before)]
            writers = [*writers, writer] if writer not in writers else writers
        else:
            refused += 1
            assert writer.table.blocks == before
            cache.free(writer.table)
            writers = [w for w in writers if w is not writer]
        cache.check([w.table for w in writers])
        for other in writers:
            other.assert_intact()
    assert found > 5
    assert copied > 0
    assert refused > 0 or cache.num_blocks > 4
    assert not cache.keys[:, 0].any()
    for writer in writers:
        cache.free(writer.table)
    assert cache.free_blocks == cache.num_blocks - 1


def test_blocks_are_found_by_all_tokens_up_to_their_end():
    cache = narrow_cache(20)
    first = Writer(cache, [1] * 70)
    first.write([])
    for ids, covered in [
        ([1] * 70, 70),
        ([1] * 71, 64),
        ([1] * 69, 64),
        ([1] * 64, 64),
        ([1] * 63, 32),
        ([0] + [1] * 69, 0),
        ([1] * 32 + [0] + [1] * 37, 32),
    ]:
        table, tokens = cache.find(ids)
        assert tokens == covered
        assert table.blocks == first.table.blocks[: blocks_for(covered)]
        cache.free(table)
    cache.check([first.table])


def test_a_shared_last_block_is_copied_by_whoever_writes_first():
    cache = narrow_cache(20)
    first = Writer(cache, [1] * 40)
    first.write([])
    second = Writer(cache, [1] * 40)
    shared = first.table.blocks[1]
    assert second.table.blocks == first.table.blocks
    first.ids = [*first.ids, 0]
    first.write([second])
    assert first.table.blocks[1] != shared
    second.write([first])  # its last token again: it is alone with the block now
    assert second.table.blocks[1] == shared
    for writer in (first, second):
        writer.assert_intact()


def test_blocks_are_known_after_their_sequence_is_gone_until_room_is_needed_oldest_first():
    cache = narrow_cache(7)
    for token in (0, 1):
        writer = Writer(cache, [token] * 64)
        writer.write([])
        cache.free(writer.table)
    assert cache.free_blocks == 6
    for token in (1, 0):
        table, tokens = cache.find([token] * 64)
        assert tokens == 64
        cache.free(table)
    writer = Writer(cache, [2] * 100)  # 4 blocks: the 2 unused ones and those of token 1
    writer.write([])
    assert [cache.find([token] * 64)[1] for token in (1, 0)] == [0, 64]


def test_without_room_nothing_changes():
    cache = narrow_cache(4)
    first = Writer(cache, [1] * 64)
    assert first.write([])
    second = Writer(cache, [1] * 33 + [0] * 40)
    assert second.computed == 32
    before = list(second.table.blocks)
    assert not second.write([first])
    assert second.table.blocks == before
    cache.check([first.table, second.table])


def test_the_cache_takes_as_many_blocks_as_its_bytes_hold():
    size = block_bytes(NARROW, torch.bfloat16)
    assert size == 2 * 2 * 1 * 32 * 2 * 2
    cache = PagedCache.within(NARROW, cache_bytes=5 * size - 1, dtype=torch.bfloat16)
    assert cache.keys.nbytes + cache.values.nbytes == 4 * size
    assert cache.capacity_tokens == 3 * 32
    with pytest.raises(ResourceError, match=f"{2 * size - 1:,} bytes.*at least {2 * size:,}"):
        PagedCache.within(NARROW, cache_bytes=2 * size - 1, dtype=torch.bfloat16)


@pytest.mark.parametrize("cuts", [[70], [1] * 70, [30, 40], [5, 1, 1, 58, 5], [32, 32, 6]])
def test_logits_through_the_cache_equal_those_of_one_pass(cuts):
    model = tiny_model()
    ids = torch.randint(0, 261, (70,), generator=torch.Generator().manual_seed(0)).tolist()
    cache = PagedCache(model.config, num_blocks=5, dtype=torch.float32)
    table = BlockTable()
    cache.reserve(table, 0, 70)
    parts, start = [], 0
    for length in cuts:
        part = prefill(model, cache, table=table, ids=ids[start : start + length], start=start)
        parts.append(part)
        start += length
    with torch.inference_mode():
        whole_1TV = model(torch.tensor([ids]))
    assert torch.allclose(torch.cat(parts, dim=1), whole_1TV, atol=2e-4, rtol=1e-4)


def test_a_step_of_sequences_of_different_lengths_equals_passes_of_their_own():
    model = tiny_model()
    cache = PagedCache(model.config, num_blocks=30, dtype=torch.float32)
    chance = random.Random(1)
    sequences = [[chance.randrange(261) for _ in range(length)] for length in (70, 1, 33, 5, 64)]
    tables = []
    for ids in sequences:
        tables.append(BlockTable())
        cache.reserve(tables[-1], 0, len(ids))
        if len(ids) > 1:
            prefill(model, cache, table=tables[-1], ids=ids[:-1], start=0)
    logits_BV = TorchDecoder(model, cache).step(
        torch.tensor([ids[-1] for ids in sequences]),
        torch.tensor([len(ids) - 1 for ids in sequences]),
        torch.tensor([t.blocks + [0] * (3 - len(t.blocks)) for t in tables], dtype=torch.int32),
    )
    assert logits_BV.dtype == torch.float32
    with torch.inference_mode():
        for logits_V, ids in zip(logits_BV, sequences, strict=True):
            assert torch.allclose(logits_V, model(torch.tensor([ids]))[0, -1], atol=2e-4, rtol=1e-4)
    assert not cache.keys[:, 0].any()


def test_a_step_may_hold_positions_of_one_sequence_that_follow_each_other():
    model = tiny_model()
    cache = PagedCache(model.config, num_blocks=4, dtype=torch.float32)
    ids = list(range(40, 90))
    table = BlockTable()
    cache.reserve(table, 0, 50)
    prefill(model, cache, table=table, ids=ids[:20], start=0)
    logits_TV = TorchDecoder(model, cache).step(
        torch.tensor(ids[20:]),
        torch.arange(20, 50),
        torch.tensor([table.blocks], dtype=torch.int32).expand(30, -1),
    )
    with torch.inference_mode():
        assert torch.allclose(logits_TV, model(torch.tensor([ids]))[0, 20:], atol=2e-4, rtol=1e-4)
