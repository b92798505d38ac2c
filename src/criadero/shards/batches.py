"""From global sample indices to tensors: `Batches`, the training side of the shards.

A sample is `seq_len + 1` consecutive tokens of a source's packed documents (inputs and, one later, targets);
sequences start every `seq_len` tokens. The loader's state is one integer, the next global sample: step after
step takes the next `global_count` samples, and every rank a contiguous share of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from criadero.errors import ConfigError, DataError
from criadero.shards.batch import Batch, Row, collate
from criadero.shards.config import DataConfig, SourceConfig
from criadero.shards.order import Location, OrderedSource, SampleOrder
from criadero.shards.prefetch import Prefetch
from criadero.shards.read import ShardSet

logger = logging.getLogger("criadero")

MicroBatches = tuple[Batch, ...]


@dataclass(frozen=True)
class Source:
    """One source of the mixture, opened."""

    config: SourceConfig
    shards: ShardSet
    num_sequences: int


class Batches:
    """The endless, seeded stream of training sequences over one or more sources.

    Attributes:
        sources: in the order of the config.
        order: which sequence each global sample is.

    Args:
        config: sources, sequence length, seed.
        vocab_size: the model's vocabulary, to refuse shards whose ids it cannot embed.

    Raises:
        DataError: shards missing or damaged, made by different tokenizers, or too short for one sequence.
        ConfigError: the model's vocabulary is smaller than the shards'.
    """

    def __init__(self, config: DataConfig, *, vocab_size: int | None = None) -> None:
        self.config = config
        self.sources = tuple(_open(source, config.seq_len) for source in config.sources)
        _require_one_tokenizer(self.sources)
        self.vocab_size = self.sources[0].shards.manifest.tokenizer.vocab_size
        if vocab_size is not None and vocab_size < self.vocab_size:
            raise ConfigError(
                f"the model's vocabulary of {vocab_size:,} is smaller than the shards' {self.vocab_size:,}",
                hint=f"set model.vocab_size to {self.vocab_size} or more",
            )
        self.order = SampleOrder(
            [
                OrderedSource(s.config.name, s.num_sequences, s.config.weight or float(s.num_sequences))
                for s in self.sources
            ],
            config.seed,
        )
        self._bad_samples: set[int] = set()

    @property
    def fingerprints(self) -> dict[str, str]:
        """Hash of content and share of each source by name: a run may go on only if they are the same."""
        return {
            source.config.name: f"{source.shards.fingerprint} x {weight:.9g}"
            for source, weight in zip(self.sources, self.order.weights, strict=True)
        }

    def verify(
        self, rank: int = 0, world_size: int = 1, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> None:
        """Hash this rank's share of every source's shards, until a stop is asked for.

        Raises:
            DataError: naming a file that has changed.
        """
        for source in self.sources:
            source.shards.verify(rank, world_size, stop_requested=stop_requested)

    def epochs(self, num_samples: int) -> dict[str, float]:
        """Return how often the first `num_samples` samples go through each source (LLaMA Table 1)."""
        names = [source.config.name for source in self.sources]
        return dict(zip(names, self.order.epochs(num_samples), strict=True))

    def require_epochs(self, num_samples: int) -> None:
        """Check, before the start, that no source is repeated more often than its config allows.

        Raises:
            ConfigError: listing every source over its `max_epochs`.
        """
        epochs = self.epochs(num_samples)
        over = [
            f"source `{source.config.name}` would be seen {epochs[source.config.name]:.2f} times, "
            f"max_epochs is {source.config.max_epochs:g}"
            for source in self.sources
            if source.config.max_epochs is not None and epochs[source.config.name] > source.config.max_epochs
        ]
        if over:
            raise ConfigError(
                f"{num_samples:,} sequences are more than the mixture has:\n"
                + "\n".join(f"  - {line}" for line in over),
                hint="train on fewer tokens, lower the source's weight, or raise its max_epochs",
            )

    def batch(self, first_sample: int, count: int) -> Batch:
        """Return samples [first_sample, first_sample + count) as one batch of shape (count, seq_len).

        Raises:
            DataError: a token id outside the vocabulary, named with shard, offset and document.
        """
        return self._batch(first_sample, first_sample + count, count)

    def share(
        self, first_sample: int, *, global_count: int, rank: int = 0, world_size: int = 1, micro_count: int
    ) -> MicroBatches:
        """Return one rank's micro-batches of the step that takes `global_count` samples from `first_sample`.

        All ranks get the same number of micro-batches with the same shapes, at most `micro_count` rows each;
        where the samples do not divide, a rank's last row is padding without targets.

        Raises:
            DataError: as `batch`.
        """
        start, stop = (first_sample + global_count * part // world_size for part in (rank, rank + 1))
        most = -(-global_count // world_size)
        return tuple(
            self._batch(
                min(start + row, stop), min(start + row + micro_count, stop), min(micro_count, most - row)
            )
            for row in range(0, most, micro_count)
        )

    def iterate(
        self,
        first_sample: int,
        *,
        global_count: int,
        rank: int = 0,
        world_size: int = 1,
        micro_count: int,
        depth: int = 2,
    ) -> Prefetch[tuple[MicroBatches, int]]:
        """Yield (one rank's micro-batches of a step, first sample of the next step), without end.

        A background thread prepares up to `depth` steps ahead; close the result, or use it with `with`.
        """

        def steps(sample: int) -> Iterator[tuple[MicroBatches, int]]:
            while True:
                micro_batches = self.share(
                    sample,
                    global_count=global_count,
                    rank=rank,
                    world_size=world_size,
                    micro_count=micro_count,
                )
                sample += global_count
                yield micro_batches, sample

        return Prefetch(steps(first_sample), depth=depth)

    def window(self, location: Location, row: int) -> tuple[Source, int]:
        """Return the source of one located sample and the position of its first token."""
        return self.sources[int(location.source[row])], int(location.sequence[row]) * self.config.seq_len

    def _batch(self, start: int, stop: int, num_rows: int) -> Batch:
        samples = np.arange(start, stop, dtype=np.int64)
        location = self.order.locate(samples)
        rows = [self._row(sample, *self.window(location, n)) for n, sample in enumerate(samples.tolist())]
        rows += [Row()] * (num_rows - len(rows))
        return collate(rows, self.config.seq_len, mask_documents=self.config.mask_documents)

    def _row(self, sample: int, source: Source, first: int) -> Row:
        stop = first + self.config.seq_len
        tokens = source.shards.tokens(first, stop + 1)
        if int(tokens.max()) >= self.vocab_size:
            self._meet_bad_sample(sample, source, first, tokens)
            return Row(sample)
        if not self.config.mask_documents:
            return Row(sample, tokens[:-1], tokens[1:])
        return Row(sample, tokens[:-1], tokens[1:], source.shards.document_starts(first + 1, stop) - first)

    def _meet_bad_sample(
        self, sample: int, source: Source, first: int, tokens: npt.NDArray[np.unsignedinteger]
    ) -> None:
        """Count a sequence with an impossible id; it becomes padding while the limit lasts."""
        place = int(np.argmax(tokens >= self.vocab_size))
        message = (
            f"sample {sample:,} of source `{source.config.name}` holds token id {int(tokens[place])}, "
            f"outside the vocabulary of {self.vocab_size:,}: {source.shards.where(first + place)}"
        )
        self._bad_samples.add(sample)
        if len(self._bad_samples) > self.config.max_bad_sequences:
            raise DataError(message, hint="the shard is damaged: restore it or build the shards again")
        logger.warning("left out: %s", message)


def _open(config: SourceConfig, seq_len: int) -> Source:
    shards = ShardSet(config.path / "train")
    return Source(config, shards, (shards.num_tokens - 1) // seq_len)


def _require_one_tokenizer(sources: tuple[Source, ...]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if other.shards.manifest.tokenizer.sha256 != first.shards.manifest.tokenizer.sha256:
            raise DataError(
                f"sources `{first.config.name}` and `{other.config.name}` have different tokenizers",
                hint="build both with the same tokenizer",
            )
