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
    """Section [run]: where the run is written and who else receives its metrics.

    Attributes:
        folder: the run folder; one that has a run in it is gone on with.
        sinks: where metrics go besides metrics.jsonl; `tensorboard` is the one there is.
        log_seconds: time between two progress lines where stderr is no terminal.
    """

    folder: Path
    sinks: tuple[str, ...] = ()
    log_seconds: float = Field(default=5.0, gt=0)


class OptimizerConfig(Config):
    """Section [optimizer]: AdamW (LLaMA 2.3). eps and what is decayed are open in the paper.

    Decayed are all matrices, embeddings included; the norms' gains are not.

    Attributes:
        learning_rate: the maximum that the schedule rises to.
        beta1, beta2: how much of the running means of gradient and squared gradient stays at each step.
        eps: added to the root of the second moment.
        weight_decay: decoupled; a matrix shrinks by this times the rate at each step.
        clip_norm: greatest global norm of the gradients.
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

    Attributes:
        kind: the shape after the warm-up.
        warmup_steps: steps over which the rate rises linearly from near 0.
        final_ratio: the rate of the last step, as part of the maximum.
        decay_fraction: of all steps, those over which WSD falls; cosine ignores it.
    """

    kind: Literal["cosine", "wsd"] = "cosine"
    warmup_steps: int = Field(default=2000, ge=0)
    final_ratio: float = Field(default=0.1, ge=0, le=1)
    decay_fraction: float = Field(default=0.1, gt=0, le=1)


class TrainingConfig(Config):
    """Section [train]: the budget, the batch and what to do when numbers go wrong.

    A step is one optimizer step over `batch_tokens` tokens, made of micro-batches of
    `micro_batch_sequences` sequences a rank.

    Attributes:
        tokens: the budget; a finished run given a larger one goes on.
        batch_tokens: tokens of one step, over all ranks; a multiple of data.seq_len.
        micro_batch_sequences: what one rank works on at once; changes memory and speed alone.
        seed: decides the first weights.
        device: `auto` takes CUDA where there is one.
        compute_dtype: what layers compute in; weights and optimizer states are float32 always.
        fp8: matrix products of the layers in 8-bit floating point, by torchao; CUDA only.
        recompute: what the backward pass computes again instead of keeping it: nothing; all of each layer;
            or, as the paper, all but the outputs of linear layers and attention (LLaMA 2.4).
        compile: compile each layer, where there is a C++ compiler.
        loss_chunk_tokens: rows of float32 logits that exist at once.
        timeout_seconds: how long a rank waits for the others before it is an error.
        on_nonfinite: what to do when a loss or gradient is not finite; parameters never change by it.
        on_spike: what to do when the gradient norm is a spike: say so; leave the update out; or go back to
            the last checkpoint and on with the samples after the spike.
        spike_factor: a spike is a norm above this many times the median of the last 100; the first 20 are
            not judged.
        skip_budget: steps that may be left out, those that led to a roll-back too, before it is an error.
    """

    tokens: PositiveInt
    batch_tokens: PositiveInt = 4_194_304
    micro_batch_sequences: PositiveInt = 8
    seed: int = Field(default=0, ge=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    fp8: bool = False
    recompute: Literal["none", "paper", "full"] = "none"
    compile: bool = False
    loss_chunk_tokens: PositiveInt = 2048
    timeout_seconds: int = Field(default=600, gt=0, le=365 * 86_400)
    on_nonfinite: Literal["stop", "skip"] = "stop"
    on_spike: Literal["report", "skip", "rollback"] = "report"
    spike_factor: float = Field(default=10.0, gt=1)
    skip_budget: int = Field(default=10, ge=0)


class HeldOutConfig(Config):
    """Section [heldout]: held-out loss while training; all held-out text is scored at the end.

    Attributes:
        every_steps: steps from one score to the next; 0 means only at the end.
        tokens: how much of the held-out text such a score takes, in whole documents.
    """

    every_steps: int = Field(default=1000, ge=0)
    tokens: PositiveInt = 1_000_000


class RunConfig(Config):
    """Everything one training run depends on.

    Attributes:
        run: where the run is written.
        model: sizes and constants, or a preset.
        initial_model: a MODEL to take the first weights from; unset, they follow from train.seed.
        data: which token shards, in which proportions.
        train: budget, batch, seed, device, policies.
        optimizer: AdamW.
        schedule: the learning rate over the run.
        heldout: scoring held-out text.
        checkpoint: when checkpoints are written and which stay.
        parallel: layout of the ranks.
        carbon: what the energy meter has to assume.
        profile: record some steps of the run, and write where their time went into its folder.
    """

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
    profile: bool = False

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
        faults += self._faults_of_tensor_parallelism()
        faults += self._faults_of_fp8() if train.fp8 else []
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _faults_of_tensor_parallelism(self) -> list[str]:
        """Say what cannot be cut into as many parts as there are ranks to share it."""
        tp, pieces = self.parallel.tp, self.parallel.tp * self.parallel.tp_chunks
        cut = {
            "model.num_heads": (self.model.num_heads, "parallel.tp", tp),
            "model.num_kv_heads": (self.model.num_kv_heads, "parallel.tp", tp),
            "model.hidden_dim": (self.model.hidden_dim, "parallel.tp", tp),
            "model.vocab_size": (self.model.vocab_size, "parallel.tp", tp),
            "data.seq_len": (self.data.seq_len, "parallel.tp x parallel.tp_chunks", pieces),
        }
        return [
            f"{name} ({value}) must be a multiple of {by} ({parts})"
            for name, (value, by, parts) in cut.items()
            if value % parts
        ]

    def _faults_of_fp8(self) -> list[str]:
        """Say what the kernels of 8-bit products cannot do."""
        model = self.model
        multiplied = {
            "model.dim": model.dim,
            "model.hidden_dim": model.hidden_dim,
            "the width of all query heads": model.num_heads * model.head_dim,
            "the width of all key heads": model.num_kv_heads * model.head_dim,
            "data.seq_len": self.data.seq_len,
        }
        faults = [
            f"with train.fp8, {name} ({value}) must be a multiple of 16"
            for name, value in multiplied.items()
            if value % 16
        ]
        if self.parallel.tp > 1:
            faults.append(f"train.fp8 works with parallel.tp=1, not with {self.parallel.tp}")
        if self.train.device == "cpu":
            faults.append("train.fp8 needs train.device=cuda or auto")
        return faults

    @property
    def batch_sequences(self) -> int:
        """Sequences in one step, over all ranks."""
        return self.train.batch_tokens // self.data.seq_len

    @property
    def total_steps(self) -> int:
        """Optimizer steps in the budget."""
        return self.train.tokens // self.train.batch_tokens
