"""Held-out windows cover every token once, on any number of ranks, with the bytes that belong to them."""

from __future__ import annotations

import pytest
import torch

from criadero.shards.batch import IGNORED, NO_SAMPLE, Batch
from criadero.shards.held_out import HeldOut
from criadero.shards.read import ShardSet
from shards.conftest import BuildShards, make_documents

T = 7


@pytest.fixture
def shards(build_shards: BuildShards) -> ShardSet:
    return ShardSet(build_shards(make_documents(100), heldout_fraction=0.4, seed=1) / "heldout")


def _targets(batches: list[Batch]) -> list[int]:
    rows = [
        (sample, batch.targets_BT[n])
        for batch in batches
        for n, sample in enumerate(batch.sample_indices)
        if sample != NO_SAMPLE
    ]
    rows.sort(key=lambda row: row[0])
    return [t for _, row in rows for t in row.tolist() if t != IGNORED]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_token_is_a_target_once_on_any_number_of_ranks(shards: ShardSet, world_size: int) -> None:
    held_out = HeldOut([shards], seq_len=T)
    per_rank = [list(held_out.batches(4, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert len({len(batches) for batches in per_rank}) == 1
    assert {tuple(b.tokens_BT.shape) for batches in per_rank for b in batches} == {(4, T)}
    assert (
        _targets([b for batches in per_rank for b in batches]) == shards.tokens(0, shards.num_tokens).tolist()
    )
    assert sum(b.num_targets for batches in per_rank for b in batches) == held_out.num_tokens
    assert (held_out.num_tokens, held_out.text_bytes) == (shards.num_tokens, shards.num_bytes)


def test_inputs_are_the_tokens_before_and_the_first_follows_a_closing_token(shards: ShardSet) -> None:
    held_out = HeldOut([shards], seq_len=T)
    inputs = torch.cat([batch.tokens_BT for batch in held_out.batches(5)]).flatten()[: shards.num_tokens]
    assert inputs.tolist() == [2, *shards.tokens(0, shards.num_tokens - 1).tolist()]


def test_a_budget_takes_whole_documents_and_counts_their_bytes(shards: ShardSet) -> None:
    held_out = HeldOut([shards], seq_len=T, max_tokens=400)
    assert 300 < held_out.num_tokens <= 400
    targets = _targets(list(held_out.batches(3)))
    assert len(targets) == held_out.num_tokens
    documents = "".join(map(chr, targets)).split(chr(2))[:-1]
    assert len(documents) == held_out.num_documents
    assert all(document[0] == chr(1) for document in documents)
    assert sum(len(document) - 1 for document in documents) == held_out.text_bytes
    assert _targets(list(HeldOut([shards], seq_len=T, max_tokens=400).batches(3))) == targets
    stored = shards.tokens(0, shards.num_tokens).tolist()
    assert targets != stored[: len(targets)]  # drawn from all over, not the first ones
    assert HeldOut([shards], seq_len=T, max_tokens=1).num_documents == 1
    assert HeldOut([shards], seq_len=T, max_tokens=10**9).num_documents == shards.num_documents


def test_document_numbers_follow_the_stored_boundaries(shards: ShardSet) -> None:
    for max_tokens in (None, 400):
        held_out = HeldOut([shards], seq_len=T, max_tokens=max_tokens, mask_documents=True)
        for batch in held_out.batches(1):
            (tokens,), (documents,), (positions,) = batch.tokens_BT, batch.document_BT, batch.positions_BT
            opened = (tokens == 1).long().cumsum(0) - (tokens[0] == 1).long()
            valid = batch.targets_BT[0] != IGNORED
            assert documents[valid].tolist() == opened[valid].tolist()
            assert all(positions[n] == 0 for n in range(T) if tokens[n] == 1)


def test_several_sources_are_one_held_out_text(build_shards: BuildShards) -> None:
    both = [
        ShardSet(build_shards(make_documents(60, prefix=name), name, heldout_fraction=0.5) / "heldout")
        for name in ("first", "second")
    ]
    held_out = HeldOut(both, seq_len=T)
    held_out.verify()
    assert _targets(list(held_out.batches(4))) == [
        t for s in both for t in s.tokens(0, s.num_tokens).tolist()
    ]
    part = HeldOut(both, seq_len=T, max_tokens=600)
    assert len(_targets(list(part.batches(4)))) == part.num_tokens <= 600
    assert {piece.shards.path for piece in part._pieces} == {s.path for s in both}
