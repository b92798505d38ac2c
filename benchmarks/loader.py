"""How many tokens a second the loader delivers, beside what training on this machine consumes.

Writes shards of random ids to a temporary folder, then takes steps from `Batches.iterate` as the training
loop does: two weighted sources, LLaMA's sequence length, ready int64 tensors. The last line is one JSON
object; `ratio` is against our own speed in results/train_cpu.json, where that benchmark has been run.

    python benchmarks/loader.py
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from criadero import files
from criadero.config import to_values
from criadero.shards.batches import Batches
from criadero.shards.config import DataConfig, SourceConfig
from criadero.shards.manifest import Manifest, TokenizerIdentity
from criadero.shards.shard_writer import ShardWriter

SEQ_LEN = 2048
GLOBAL_COUNT, MICRO_COUNT = 64, 8
DOCUMENT_TOKENS, DOCUMENTS = 1_000, 24_000
ROUNDS, STEPS = 5, 60
TRAINING = Path(__file__).parent / "results" / "train_cpu.json"


def write_source(folder: Path, *, seed: int) -> None:
    """Write one train split of random ids, LLaMA's vocabulary."""
    (folder / "train").mkdir(parents=True)
    identity = TokenizerIdentity(kind="random", sha256="0" * 64, vocab_size=32_000, bos_id=1, eos_id=2)
    writer = ShardWriter(folder / "train" / "shard-00000.bin", identity)
    generator = np.random.default_rng(seed)
    for number in range(DOCUMENTS):
        ids = generator.integers(3, 32_000, DOCUMENT_TOKENS, dtype=np.uint32)
        writer.add(f"{number}", 4 * DOCUMENT_TOKENS, ids)
    file = writer.finish()
    manifest = Manifest(
        split="train", source=folder.name, tokenizer=identity, token_bytes=2, num_tokens=file.num_tokens,
        num_documents=file.num_documents, num_bytes=file.num_bytes, files=(file,),
    )  # fmt: skip
    files.write_json(folder / "train" / "manifest.json", to_values(manifest))


def tokens_per_second(config: DataConfig) -> float:
    """Take `STEPS` steps; the first, which waits for the thread to start, is not timed."""
    with Batches(config).iterate(0, global_count=GLOBAL_COUNT, micro_count=MICRO_COUNT) as steps:
        next(steps)
        start, tokens = time.perf_counter(), 0
        for _ in range(STEPS):
            micro_batches, _ = next(steps)
            tokens += sum(batch.num_targets for batch in micro_batches)
        return tokens / (time.perf_counter() - start)


def training_tokens_per_second(path: Path) -> float | None:
    """Return our training speed from the results of train_cpu.py, None if it has not been run."""
    if not path.is_file():
        return None
    return float(json.loads(path.read_text())["ours"])


def main() -> None:
    """Measure plain and masked batches, rounds alternated, and print the result."""
    rates: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("a", "b")]
        for seed, folder in enumerate(folders):
            write_source(folder, seed=seed)
        sources = tuple(
            SourceConfig(name=folder.name, path=folder, weight=weight)
            for folder, weight in zip(folders, (0.8, 0.2), strict=True)
        )
        for number in range(ROUNDS):
            for mask, measured in rates.items():
                config = DataConfig(sources=sources, seq_len=SEQ_LEN, mask_documents=mask)
                measured.append(tokens_per_second(config))
                print(f"round {number + 1}, mask_documents={mask}: {measured[-1] / 1e6:.1f}M tokens/s")
    loader, training = statistics.median(rates[False]), training_tokens_per_second(TRAINING)
    result = {
        "loader_tokens_per_second": round(loader),
        "loader_spread": [round(min(rates[False])), round(max(rates[False]))],
        "loader_masked_tokens_per_second": round(statistics.median(rates[True])),
        "training_tokens_per_second": training,
        "ratio": None if training is None else round(loader / training, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
