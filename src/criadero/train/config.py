"""The config of a training run: `RunConfig` is what a TOML file in configs/ holds.

Defaults are the paper's (LLaMA 2.3); each section's model belongs to the package that uses it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from criadero.carbon.config import CarbonConfig
from criadero.checkpoint.config import CheckpointConfig
from criadero.config import Config
from criadero.model.config import ModelConfig
from criadero.model.presets import PRESETS
from criadero.parallel.config import ParallelConfig
from criadero.shards.config import DataConfig


class FolderConfig(Config):
    """Section [run]: where the run is written and who else receives its metrics."""

    folder: Path
    sinks: tuple[str, ...] = ()
    log_seconds: float = Field(default=5.0, gt=0)


class OptimizerConfig(Config):
    """Section [optimizer]: AdamW (LLaMA 2.3). eps and what is decayed are open in the paper.

    Decayed are all matrices, embeddings included; the norms' gains are not.
    """

    learning_rate: float = Field(default=3e-4, gt=0, allow_inf_nan=False)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    clip_norm: float = Field(default=1.0, gt=0)


class ScheduleConfig(Config):
    """Section [schedule]: warm-up, then cosine to `final_ratio` of the maximum, or WSD.

    WSD (warm-up, stable, decay) holds the maximum and falls linearly over the last `decay_fraction`.
    """

    kind: Literal["cosine", "wsd"] = "cosine"
    warmup_steps: int = Field(default=2000, ge=0)
    final_ratio: float = Field(default=0.1, ge=0, le=1)
    decay_fraction: float = Field(default=0.1, gt=0, le=1)


class TrainingConfig(Config):
    """Section [train]: the budget, the batch and what to do when numbers go wrong.

    A step is one optimizer step over `batch_tokens` tokens, made of micro-batches of
    `micro_batch_sequences` sequences a rank.
    """

    tokens: PositiveInt
    batch_tokens: PositiveInt = 4_194_304
    micro_batch_sequences: PositiveInt = 8
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    compile: bool = False
    loss_chunk_tokens: PositiveInt = 2048
    timeout_seconds: PositiveInt = 600
    on_nonfinite: Literal["stop", "skip"] = "stop"
    on_spike: Literal["report", "skip"] = "report"
    spike_factor: float = Field(default=10.0, gt=1)
    skip_budget: int = Field(default=10, ge=0)


class HeldOutConfig(Config):
    """Section [heldout]: held-out loss while training; 0 steps means only at the end."""

    every_steps: int = Field(default=1000, ge=0)
    tokens: PositiveInt = 1_000_000


class RunConfig(Config):
    """Everything one training run depends on."""

    run: FolderConfig
    model: ModelConfig
    initial_model: Path | None = None
    data: DataConfig
    train: TrainingConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    heldout: HeldOutConfig = HeldOutConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    parallel: ParallelConfig = ParallelConfig()
    carbon: CarbonConfig = CarbonConfig()

    @field_validator("model", mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        """`preset = "7b"` in [model] stands for its fields; others given beside it win."""
        if isinstance(values, dict) and "preset" in values:
            rest = {key: value for key, value in values.items() if key != "preset"}
            if values["preset"] not in PRESETS:
                raise ValueError(f"unknown preset {values['preset']!r}, known: {', '.join(PRESETS)}")
            return {**PRESETS[values["preset"]], **rest}
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> RunConfig:
        train, seq_len, longest = self.train, self.data.seq_len, self.model.max_seq_len
        faults = []
        if train.batch_tokens % seq_len:
            faults.append(
                f"train.batch_tokens ({train.batch_tokens}) must be a multiple of data.seq_len ({seq_len})"
            )
        if seq_len > longest:
            faults.append(f"data.seq_len ({seq_len}) is longer than model.max_seq_len ({longest})")
        if train.tokens < train.batch_tokens:
            faults.append(
                f"train.tokens ({train.tokens}) is less than one step of "
                f"train.batch_tokens ({train.batch_tokens})"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def batch_sequences(self) -> int:
        """Sequences in one step, over all ranks."""
        return self.train.batch_tokens // self.data.seq_len

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the budget."""
        return self.train.tokens // self.train.batch_tokens
