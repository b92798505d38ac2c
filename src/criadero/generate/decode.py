"""Running the model on sequences whose keys and values lie in a paged cache.

Entry points: `Decoder.step`, one token of many sequences at once, of which `TorchDecoder` is the plain
form, and `difference`, by which the others are compared with the model; and `prefill`, some tokens of one
sequence after those cached. All attend to copies of the blocks put one after the other (`PageIndex`).
Letters: B batch, T new tokens, S all tokens, N blocks of a table, K key/value heads, E head width, D
model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.generate.kv_cache import BLOCK_TOKENS, BlockTable, PagedCache
from criadero.model.transformer import Head, Transformer

CHECK_TOKENS = 4
"""How many tokens a decoder is compared with the model on."""

ROUNDED = 0.25
"""A `difference` that roundings may make, a few percent in truth; that of a wrong decoder is about 1."""


class Decoder(Protocol):
    """One step of decoding, for sequences of different lengths together."""

    def step(
        self, tokens_B: Tensor, positions_B: Tensor, tables_BN: Tensor, *, scored: int | None = None
    ) -> Tensor:
        """Run the model on one new token of each sequence.

        Writes the token's key and value at its position and attends to all positions up to it. The block
        of that position is held by its sequence alone. All arguments are on the CPU. Rows may be positions
        of one sequence that follow each other: what all rows write is there before any is attended to.

        Args:
            tokens_B: int64 ids.
            positions_B: int64, counted from 0; all before are in the cache.
            tables_BN: int32 block numbers of each sequence, padded with 0.
            scored: how many of the last rows get logits: all (None), 1 or 0.

        Returns:
            float32 logits (B or scored, V) of the tokens that follow, on the model's device.
        """
        ...


class TorchDecoder:
    """Decoding by the model's own forward pass, on any device.

    Args:
        model: with loaded weights.
        cache: on the model's device, in its dtype.
    """

    def __init__(self, model: Transformer, cache: PagedCache) -> None:
        self._model = model
        self._cache = cache

    @torch.inference_mode()
    def step(
        self, tokens_B: Tensor, positions_B: Tensor, tables_BN: Tensor, *, scored: int | None = None
    ) -> Tensor:
        """Return logits (B, V), float32; see `Decoder`."""
        device = self._cache.keys.device
        length = int(positions_B.max()) + 1
        mask_B1S = None
        if int(positions_B.min()) + 1 < length:
            mask_B1S = torch.arange(length) <= positions_B[:, None]
            mask_B1S = mask_B1S.unsqueeze(1).to(device, non_blocking=True)
        positions_B1 = positions_B.unsqueeze(1)
        logits_BV: Tensor = self._model(
            tokens_B.unsqueeze(1).to(device, non_blocking=True),
            positions_BT=positions_B1.to(device, non_blocking=True),
            mask_BTT=mask_B1S,
            cache=_Pages(self._cache, tables_BN, positions_B1, length=length),
            head=last_logits,
        )
        return logits_BV[0 if scored is None else len(tokens_B) - scored :].float()


@torch.inference_mode()
def prefill(
    model: Transformer,
    cache: PagedCache,
    *,
    table: BlockTable,
    ids: Sequence[int],
    start: int,
    head: Head | None = None,
) -> Any:
    """Run the model on tokens of one sequence that follow its first `start` ones.

    Args:
        model: with loaded weights.
        cache: on the model's device, in its dtype.
        table: whose positions `start` to `start + len(ids)` are reserved.
        ids: at least one new token.
        start: how many tokens the cache already holds for this table.
        head: what to make of the final hidden states (1, T, D); None for logits (1, T, V).
    """
    device = cache.keys.device
    end = start + len(ids)
    positions_1T = torch.arange(start, end).unsqueeze(0)
    mask_1TS = None
    if start and len(ids) > 1:
        mask_1TS = torch.ones(1, len(ids), end, dtype=torch.bool, device=device).tril(start)
    return model(
        torch.tensor([list(ids)]).to(device, non_blocking=True),
        positions_BT=positions_1T.to(device, non_blocking=True),
        mask_BTT=mask_1TS,
        cache=_Pages(cache, torch.tensor([table.blocks]), positions_1T, length=end),
        head=head,
    )


def last_logits(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
    """Return logits (B, V) of the last token only."""
    return F.linear(hidden_BTD[:, -1], weight_VD)


@torch.inference_mode()
def difference(model: Transformer, step: Callable[[Tensor, Tensor], Tensor], *, count: int) -> float:
    """Return how far logits made one by one are from the model's: root mean square over that of theirs.

    Args:
        step: makes logits (1, V) of a token (1) at a position (1) of one sequence.
        count: of tokens.
    """
    tokens_T = torch.arange(1, count + 1) * 7919 % model.config.vocab_size
    expected_TV = model(tokens_T[None].to(model.norm.weight.device))[0].float()
    logits_TV = torch.cat([step(tokens_T[t : t + 1], torch.tensor([t])) for t in range(count)])
    scale = (expected_TV - expected_TV.mean(dim=-1, keepdim=True)).square().mean().sqrt()
    return float((logits_TV - expected_TV).square().mean().sqrt() / scale.clamp(min=1e-20))


@dataclass(frozen=True)
class PageIndex:
    """Where tokens of sequences lie in the pages of a layer, (blocks, K, BLOCK_TOKENS, E).

    Attributes:
        blocks_M, slots_M: of all new tokens, B * T of them.
        rows_BKN: of pages as rows (blocks * K); one is long enough to be copied as fast as memory is.
    """

    blocks_M: Tensor
    slots_M: Tensor
    rows_BKN: Tensor

    @classmethod
    def of(cls, tables_BN: Tensor, positions_BT: Tensor, *, num_heads: int) -> PageIndex:
        """Return that of new tokens at these positions, where the arguments are; tables are int64."""
        heads_K1 = torch.arange(num_heads, device=tables_BN.device)[:, None]
        return cls(
            tables_BN.gather(1, positions_BT // BLOCK_TOKENS).flatten(),
            (positions_BT % BLOCK_TOKENS).flatten(),
            tables_BN[:, None, :] * num_heads + heads_K1,
        )

    def to(self, device: torch.device) -> PageIndex:
        """Return the same on a device."""
        parts = (self.blocks_M, self.slots_M, self.rows_BKN)
        return PageIndex(*(part.to(device, non_blocking=True) for part in parts))

    def store(self, pages: Tensor, new_BKTE: Tensor) -> None:
        """Write new keys or values into their slots."""
        pages[self.blocks_M, :, self.slots_M] = new_BKTE.transpose(1, 2).flatten(0, 1)

    def gather(self, pages: Tensor) -> Tensor:
        """Put the blocks of each sequence one after the other, (B, K, N * BLOCK_TOKENS, E)."""
        gathered = pages.flatten(2).flatten(0, 1).index_select(0, self.rows_BKN.flatten())
        return gathered.view(*self.rows_BKN.shape[:2], -1, pages.shape[-1])


class _Pages:
    """What attention sees of a paged cache: new tokens are written, all up to the longest are given back.

    Args:
        cache: where the blocks are.
        tables_BN: block numbers, on the CPU.
        positions_BT: of the new tokens, on the CPU.
        length: S, the tokens of the longest sequence.
    """

    def __init__(self, cache: PagedCache, tables_BN: Tensor, positions_BT: Tensor, *, length: int) -> None:
        tables_BN = tables_BN[:, : -(-length // BLOCK_TOKENS)].long()
        index = PageIndex.of(tables_BN, positions_BT, num_heads=cache.keys.shape[2])
        self._cache = cache
        self._index = index.to(cache.keys.device)
        self._length = length

    def update(self, layer_index: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values of one layer; return all of that layer, (B, K, S, E) each."""
        keys, values = self._cache.keys[layer_index], self._cache.values[layer_index]
        self._index.store(keys, k_BKTE)
        self._index.store(values, v_BKTE)
        if k_BKTE.shape[2] == self._length:  # nothing was there before
            return k_BKTE, v_BKTE
        return self._index.gather(keys)[:, :, : self._length], self._index.gather(values)[
            :, :, : self._length
        ]
