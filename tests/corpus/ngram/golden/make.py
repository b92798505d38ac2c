"""Makes the golden ARPA files beside it with the real lmplz, built from the sdist of the package kenlm.

    pip download --no-deps --no-binary kenlm kenlm==0.3.0
    tar xf kenlm-0.3.0.tar.gz && cmake -S kenlm-0.3.0 -B build && make -C build lmplz
    python tests/corpus/ngram/golden/make.py kenlm-0.3.0.tar.gz build/bin/lmplz

It needs cmake, a C++ compiler and Boost (program-options, system, thread, test). manifest.json says what was
made from what, by sha256; the tests compare each file with its line there.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import random
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SAMPLES = HERE.parents[3] / "samples" / "raw" / "books"
ARGUMENTS = ["--memory", "256M", "--discount_fallback"]
# name: (text, order)
CASES = {
    "prose-1": ("prose", 1),
    "prose-2": ("prose", 2),
    "prose-3": ("prose", 3),
    "prose-5": ("prose", 5),
    "few-words-4": ("few-words", 4),
    "tiny-5": ("tiny", 5),
    "odd-words-3": ("odd-words", 3),
}


def prose() -> str:
    """Some chapters' worth of two novels and an address, one paragraph a line, as they stand."""
    lines: list[str] = []
    for name, document, count in (
        ("moby-dick", 3, 40),
        ("jane-austen", 5, 40),
        ("state-of-the-union", 60, 60),
    ):
        with lzma.open(SAMPLES / f"{name}.jsonl.xz", "rt", encoding="utf-8") as stream:
            text = json.loads(stream.readlines()[document])["text"]
        lines += [line for line in text.split("\n") if line][:count]
    return "".join(line + "\n" for line in lines)


def few_words() -> str:
    """Sentences of 30 words, so that counts are high and the last n-gram of each order is a frequent one."""
    rng = random.Random(7)
    words = [f"w{i}" for i in range(30)]
    weights = [1 / (i + 1) for i in range(30)]
    lines = [" ".join(rng.choices(words, weights, k=rng.randrange(1, 12))) for _ in range(400)]
    return "".join(line + "\n" for line in lines)


def tiny() -> str:
    """Too little for Kneser-Ney discounts; an empty sentence, and words that repeat."""
    return "a b c\nb c a\n\na a b\na\n"


def odd_words() -> str:
    """Blanks of all five kinds, white space that is none, and words of many scripts."""
    words = [
        "ü", "u\u0308", "漢字", "🦙", "no\u00a0break", "line\u2028separator", "\u3000", "\u200b", "\\data\\",
        "-1.5", "\\1-grams:", "ngram", "<S>", "<unk", "x" * 300, "\x0b", "\x85", "'", '"', "\ufeff", "ａ",
        "مرحبا", "0",
    ]  # fmt: skip
    blanks = [" ", "  ", "\t", "\r", " \t ", "\0"]
    rng = random.Random(8)
    lines = []
    for _ in range(300):
        chosen = [rng.choice(words) for _ in range(rng.randrange(0, 9))]
        lines.append(rng.choice(["", " ", "\t"]) + "".join(word + rng.choice(blanks) for word in chosen))
    return "".join(line + "\n" for line in lines)


def main() -> None:
    """Write texts, ARPA files and manifest."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sdist", type=Path)
    parser.add_argument("lmplz", type=Path)
    options = parser.parse_args()
    texts = {"prose": prose(), "few-words": few_words(), "tiny": tiny(), "odd-words": odd_words()}
    manifest: dict[str, object] = {
        "made_by": "lmplz of kenlm 0.3.0",
        "sdist_sha256": hashlib.sha256(options.sdist.read_bytes()).hexdigest(),
        "arguments": ARGUMENTS,
        "texts": {name: write(f"{name}.txt.gz", text.encode()) for name, text in texts.items()},
    }
    outputs = {}
    for case, (name, order) in CASES.items():
        done = subprocess.run(
            [options.lmplz, "--order", str(order), *ARGUMENTS],
            input=texts[name].encode(),
            capture_output=True,
            check=True,
        )
        fallbacks = re.findall(r"fallback discounts for order (\d+)", done.stderr.decode())
        outputs[case] = {
            "text": name,
            "order": order,
            "orders_with_fallback": [int(number) + 1 for number in fallbacks],
            "sha256": write(f"{case}.arpa.gz", done.stdout),
        }
    manifest["models"] = outputs
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def write(name: str, content: bytes) -> str:
    """Write a compressed file; return the sha256 of what is in it."""
    (HERE / name).write_bytes(gzip.compress(content, mtime=0))
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
