"""How the ranks of a run are laid out. Owned by `parallel`, the `[parallel]` section of a training config."""

from __future__ import annotations

from pydantic import Field, field_validator

from criadero.config import Config


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
