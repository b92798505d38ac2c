"""Encoding speed on one core: ours against sentencepiece, on the same documents in the same process.

    python benchmarks/tokenize.py [TEXT...] [--model MODEL] [--rounds 5] [--max-mb 8]

TEXT is what `criadero shards build` reads; the default is samples/. Documents of at least 4 kB are encoded
whole by both, turn by turn; a document counts with its best round of either side. The vocabulary is LLaMA's
own unless MODEL names another. The last line is one JSON object: MB/s of `ours` and of `peers`, their `ratio`
(medians over documents) with its spread, the number of `differences`, and the whole rounds as `runs`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

ROOT = Path(__file__).resolve().parents[1]
MIN_DOCUMENT_BYTES = 4096


@dataclass
class Timed:
    """One document, and how long each side took in each round."""

    text: str
    size_bytes: int
    ours_seconds: list[float]
    peer_seconds: list[float]

    def speeds(self) -> tuple[float, float]:
        """Return MB/s of both sides in their best rounds."""
        return tuple(self.size_bytes / 1e6 / min(s) for s in (self.ours_seconds, self.peer_seconds))


def main() -> None:
    options = parse_options()
    tokenizer = open_tokenizer(options.model)
    peer = open_peer(tokenizer)
    documents = read_documents(options.texts or [ROOT / "samples"], int(options.max_mb * 1e6))
    differences = sum(tokenizer.encode(d.text) != peer(d.text) for d in documents)
    for turn in range(options.rounds):
        run_round(documents, tokenizer.encode, peer, ours_first=turn % 2 == 0)
        print(f"round {turn + 1}: {describe_round(documents, turn)}")
    print(json.dumps(summary(documents, differences, tokenizer.encoder, options.rounds)))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("texts", nargs="*", type=Path, help="text files or folders (default: samples/)")
    parser.add_argument("--model", type=Path, help="SentencePiece tokenizer (default: LLaMA's vocabulary)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-mb", type=float, default=8.0, help="text in all, spread over the files")
    return parser.parse_args()


def open_tokenizer(path: Path | None) -> SentencePieceTokenizer:
    from criadero.formats.load import load_tokenizer
    from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer

    if path is None:
        sys.path.append(str(ROOT / "tests"))
        from packaged import packaged_file

        path = packaged_file("llama-vocab-gguf")
    tokenizer = load_tokenizer(path)
    if not isinstance(tokenizer, SentencePieceTokenizer):
        raise SystemExit(f"{path} is not a SentencePiece tokenizer; the peer cannot read it")
    return tokenizer


def open_peer(tokenizer: SentencePieceTokenizer) -> Callable[[str], list[int]]:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_bytes()).EncodeAsIds


def read_documents(paths: list[Path], max_bytes: int) -> list[Timed]:
    """Take as much of each file, from its start, as gives `max_bytes` in all."""
    from criadero.corpus.sources import text

    files = [file.path for path in paths for file in text.text_files(path)]
    found: list[Timed] = []
    for file in files:
        taken_bytes = 0
        for document in text.read(file):
            size_bytes = len(document.text.encode())
            if size_bytes >= MIN_DOCUMENT_BYTES:
                found.append(Timed(document.text, size_bytes, [], []))
                taken_bytes += size_bytes
            if taken_bytes >= max_bytes / len(files):
                break
    if not found:
        raise SystemExit(f"no document of at least {MIN_DOCUMENT_BYTES} bytes in {paths}")
    return found


def run_round(
    documents: list[Timed],
    ours: Callable[[str], list[int]],
    peer: Callable[[str], list[int]],
    *,
    ours_first: bool,
) -> None:
    for document in documents:
        sides = [(ours, document.ours_seconds), (peer, document.peer_seconds)]
        for encode, seconds in sides if ours_first else reversed(sides):
            start = time.perf_counter()
            encode(document.text)
            seconds.append(time.perf_counter() - start)


def round_speeds(documents: list[Timed], turn: int) -> dict[str, float]:
    """Return MB/s of both sides over a whole round."""
    megabytes = sum(d.size_bytes for d in documents) / 1e6
    return {
        "ours": round(megabytes / sum(d.ours_seconds[turn] for d in documents), 2),
        "sentencepiece": round(megabytes / sum(d.peer_seconds[turn] for d in documents), 2),
    }


def describe_round(documents: list[Timed], turn: int) -> str:
    speeds = round_speeds(documents, turn)
    ratio = speeds["ours"] / speeds["sentencepiece"]
    return f"ours {speeds['ours']} MB/s, sentencepiece {speeds['sentencepiece']} MB/s, ratio {ratio:.2f}"


def summary(documents: list[Timed], differences: int, encoder: str, rounds: int) -> dict[str, object]:
    from importlib.metadata import version

    speeds = [document.speeds() for document in documents]
    ratios = sorted(ours / peer for ours, peer in speeds)
    return {
        "benchmark": "tokenize",
        "unit": "MB/s per core, median over documents",
        "ours": round(statistics.median(ours for ours, _ in speeds), 2),
        "peers": {"sentencepiece": round(statistics.median(peer for _, peer in speeds), 2)},
        "ratio": round(statistics.median(ratios), 3),
        "ratio_spread": {
            f"p{p}": round(ratios[min(p * len(ratios) // 100, len(ratios) - 1)], 3) for p in (5, 25, 75, 95)
        },
        "differences": differences,
        "documents": len(documents),
        "megabytes": round(sum(document.size_bytes for document in documents) / 1e6, 2),
        "encoder": encoder,
        "versions": {name: version(name) for name in ("kitoken", "sentencepiece")},
        "runs": [round_speeds(documents, turn) for turn in range(rounds)],
    }
