"""How the ranks of a run are laid out. Owned by `parallel`, the `[parallel]` section of a training config."""

from __future__ import annotations

from pydantic import Field, field_validator

from criadero.config import Config
from criadero.errors import DistributedError


class ParallelConfig(Config):
    """Layout of the ranks: replicas x shards x tensor parallel.

    Attributes:
        dp_replicate: groups of ranks that each hold a full, sharded copy of the model.
        dp_shard: ranks that share one copy (FSDP2); -1 takes all that are left.
        tp: ranks that share each matrix product and, between them, the sequence; neighbours on one machine.
        tp_chunks: into how many pieces tensor parallelism cuts the sequence, so that gathering and
            scattering one piece overlaps with the products of another; 1 is off.
    """

    dp_replicate: int = Field(default=1, ge=1)
    dp_shard: int = Field(default=-1, ge=-1)
    tp: int = Field(default=1, ge=1)
    tp_chunks: int = Field(default=1, ge=1)

    @field_validator("dp_shard")
    @classmethod
    def _not_zero(cls, value: int) -> int:
        if value == 0:
            raise ValueError("should be at least 1, or -1 for all ranks that are left")
        return value

    def settled(self, world_size: int) -> ParallelConfig:
        """Return the same layout with `dp_shard` a number.

        Raises:
            DistributedError: the dimensions do not multiply to the number of ranks.
        """
        fixed = self.dp_replicate * self.tp
        dp_shard = world_size // fixed if self.dp_shard == -1 else self.dp_shard
        if fixed * dp_shard != world_size:
            raise DistributedError(
                f"dp_replicate={self.dp_replicate} x dp_shard={self.dp_shard} x tp={self.tp} "
                f"does not give {world_size} ranks",
                hint=self._how_to_settle(fixed),
            )
        return self.model_copy(update={"dp_shard": dp_shard})

    def _how_to_settle(self, fixed: int) -> str:
        if self.dp_shard != -1:
            return "leave dp_shard at -1 to use all ranks"
        return f"use a multiple of {fixed} ranks, or change parallel.tp or parallel.dp_replicate"
