"""Keys and values of the tokens seen so far, in blocks that sequences share.

Entry point: `PagedCache`. A sequence is a `BlockTable`: the numbers of its blocks, in order. Whole blocks,
and the unfinished last one of a prompt, are found again by the hash chain of their tokens, so that a shared
beginning is computed once. Whoever writes into a block is its only holder: a shared one is copied first.
Blocks nobody holds keep their contents until room is needed; then the least recently used goes. Letters:
L layers, K key/value heads, E head width.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from criadero.errors import ResourceError
from criadero.model.config import ModelConfig

BLOCK_TOKENS = 32


@dataclass
class BlockTable:
    """One sequence's place in the cache."""

    blocks: list[int] = field(default_factory=list)
    """Numbers of its blocks: position p is slot `p % BLOCK_TOKENS` of block `blocks[p // BLOCK_TOKENS]`."""
    digests: list[bytes] = field(default_factory=list)
    """Of each whole block that is known by its tokens: the hash of all tokens up to its end."""


def block_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return the bytes that one block takes: keys and values of BLOCK_TOKENS tokens in every layer."""
    return 2 * config.num_layers * config.num_kv_heads * BLOCK_TOKENS * config.head_dim * dtype.itemsize


def blocks_for(tokens: int) -> int:
    """Return how many blocks hold so many tokens."""
    return -(-tokens // BLOCK_TOKENS)


class PagedCache:
    """All blocks, who holds them, and what they are known by.

    Block 0 is never handed out and stays zero: tables are padded with it.

    Attributes:
        keys, values: (L, num_blocks, K, BLOCK_TOKENS, E) each, contiguous.

    Args:
        config: the model's sizes.
        num_blocks: with block 0, at least 2; `within` derives it from bytes.
        dtype, device: those of the model's activations.

    Raises:
        ResourceError: there is no memory for it.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        num_blocks: int,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        assert num_blocks >= 2
        shape = (config.num_layers, num_blocks, config.num_kv_heads, BLOCK_TOKENS, config.head_dim)
        # Zeros, because attention multiplies what it masks by 0, and 0 * NaN is NaN.
        try:
            self.keys = torch.zeros(shape, dtype=dtype, device=device)
            self.values = torch.zeros(shape, dtype=dtype, device=device)
        except RuntimeError as problem:  # torch's class for this on every device
            raise ResourceError(
                f"no memory for a cache of {num_blocks * block_bytes(config, dtype):,} bytes",
                hint="give the cache fewer tokens",
            ) from problem
        self.num_blocks = num_blocks
        self._forget_all()

    def _forget_all(self) -> None:
        num_blocks = self.num_blocks
        self._holders = [0] * num_blocks
        self._unused = list(range(num_blocks - 1, 0, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()  # held by nobody, known by tokens; oldest first
        self._known: dict[bytes, int] = {}
        self._names: list[dict[bytes, int]] = [
            {} for _ in range(num_blocks)
        ]  # digest -> tokens it stands for

    @classmethod
    def within(
        cls, config: ModelConfig, *, cache_bytes: int, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> PagedCache:
        """Return the largest cache of at most `cache_bytes`, no larger than 2**31 blocks.

        Raises:
            ResourceError: not even two blocks fit.
        """
        size = block_bytes(config, dtype)
        if cache_bytes < 2 * size:
            raise ResourceError(
                f"a cache of {cache_bytes:,} bytes is too small: this model needs at least {2 * size:,}, "
                f"{size:,} for every {BLOCK_TOKENS} tokens",
                hint="give the cache more memory",
            )
        return cls(config, num_blocks=min(cache_bytes // size, 2**31 - 1), dtype=dtype, device=device)

    @property
    def capacity_tokens(self) -> int:
        """Most tokens that all sequences together can hold."""
        return (self.num_blocks - 1) * BLOCK_TOKENS

    @property
    def free_blocks(self) -> int:
        """Blocks that nobody holds; some may still be found by their tokens."""
        return len(self._unused) + len(self._idle)

    def find(self, ids: Sequence[int]) -> tuple[BlockTable, int]:
        """Hold the blocks that are known to begin with `ids`; return their table and the tokens they cover.

        Whole blocks, and a last one only if it covers exactly all ids that are left.
        """
        table = BlockTable()
        covered = 0
        while covered < len(ids):
            part = ids[covered : covered + BLOCK_TOKENS]
            digest = _digest(table.digests, part)
            block = self._known.get(digest)
            if block is None:
                break
            self._hold(block)
            table.blocks.append(block)
            if len(part) == BLOCK_TOKENS:
                table.digests.append(digest)
            covered += len(part)
        return table, covered

    def reserve(self, table: BlockTable, start: int, end: int) -> bool:
        """Make positions `start` to `end` - 1 writable by this table alone; without room, return False only.

        Everything before `start` must be covered already. A block that others hold too is copied; one that
        is known by tokens to be overwritten is forgotten.
        """
        first = start // BLOCK_TOKENS
        shared = [n for n in range(first, len(table.blocks)) if self._holders[table.blocks[n]] > 1]
        missing = max(0, blocks_for(end) - len(table.blocks))
        if len(shared) + missing > self.free_blocks:
            return False
        for n in shared:
            copy = self._take()
            self._copy(table.blocks[n], copy)
            self._release(table.blocks[n])
            table.blocks[n] = copy
        for n in range(first, len(table.blocks)):
            self._forget(table.blocks[n], beyond=start - n * BLOCK_TOKENS)
        table.blocks.extend(self._take() for _ in range(missing))
        del table.digests[first:]
        return True

    def know(self, table: BlockTable, ids: Sequence[int], *, partial: bool = False) -> None:
        """Let blocks be found by the tokens they hold: `ids` are all that were written through this table.

        Args:
            partial: the unfinished last block too; worth it at the end of a prompt.
        """
        whole = len(ids) // BLOCK_TOKENS
        for n in range(len(table.digests), whole):
            digest = _digest(table.digests, ids[n * BLOCK_TOKENS : (n + 1) * BLOCK_TOKENS])
            self._name(table.blocks[n], digest, BLOCK_TOKENS)
            table.digests.append(digest)
        rest = ids[whole * BLOCK_TOKENS :]
        if partial and rest:
            self._name(table.blocks[whole], _digest(table.digests, rest), len(rest))

    def free(self, table: BlockTable) -> None:
        """Give all blocks of a table back; it is empty afterwards."""
        # The end first, because a beginning is of more use.
        for block in reversed(table.blocks):
            self._release(block)
        table.blocks.clear()
        table.digests.clear()

    def wipe(self, table: BlockTable) -> None:
        """Give all blocks back, its own as zeros: a NaN would be met again even where masked."""
        own = [block for block in table.blocks if self._holders[block] == 1]
        for block in own:
            self._forget(block, beyond=0)
        self.keys[:, own] = 0
        self.values[:, own] = 0
        self.free(table)

    def clear(self) -> None:
        """Forget all there is: every block is free and zero, tables of before are void."""
        self.keys.zero_()
        self.values.zero_()
        self._forget_all()

    def _hold(self, block: int) -> None:
        self._holders[block] += 1
        self._idle.pop(block, None)

    def _release(self, block: int) -> None:
        self._holders[block] -= 1
        assert self._holders[block] >= 0
        if self._holders[block] == 0:
            if self._names[block]:
                self._idle[block] = None
            else:
                self._unused.append(block)

    def _take(self) -> int:
        """Return a block that nobody holds or knows, now held once."""
        if not self._unused:
            block, _ = self._idle.popitem(last=False)
            self._forget(block, beyond=0)
            self._unused.append(block)
        block = self._unused.pop()
        self._holders[block] = 1
        return block

    def _copy(self, source: int, target: int) -> None:
        self.keys[:, target] = self.keys[:, source]
        self.values[:, target] = self.values[:, source]

    def _name(self, block: int, digest: bytes, tokens: int) -> None:
        if digest not in self._known:  # a second block of the same tokens stays unknown
            self._known[digest] = block
            self._names[block][digest] = tokens

    def _forget(self, block: int, *, beyond: int) -> None:
        """Drop the names of a block that stand for more than its first `beyond` tokens."""
        names = self._names[block]
        for digest in [digest for digest, tokens in names.items() if tokens > beyond]:
            del names[digest], self._known[digest]

    def check(self, tables: Iterable[BlockTable]) -> None:
        """Assert that every block is held as often as these tables, all there are, say; none is lost."""
        holders = [0] * self.num_blocks
        for table in tables:
            for block in table.blocks:
                holders[block] += 1
        assert holders == self._holders
        assert holders[0] == 0
        free = [*self._unused, *self._idle]
        assert sorted(free) == [n for n in range(1, self.num_blocks) if not holders[n]]
        assert all(self._names[n] for n in self._idle)
        assert not any(self._names[n] for n in self._unused)
        assert self._known == {d: n for n, names in enumerate(self._names) for d in names}


def _digest(before: Sequence[bytes], ids: Sequence[int]) -> bytes:
    """Return the hash of a block's tokens and all before them; nobody can make two prompts collide."""
    return hashlib.sha256((before[-1] if before else b"") + array("q", ids).tobytes()).digest()
