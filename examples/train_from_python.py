"""From a text file to a model that continues it, in a few seconds, by the public Python functions.

    python examples/train_from_python.py LICENSE /tmp/example

The same steps on the command line are `criadero tokenizer train`, `criadero shards build`, `criadero train`
and `criadero generate`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from criadero import api

DEBUG_CONFIG = Path(__file__).parent.parent / "configs" / "debug.toml"
VOCAB_SIZE = 384


def main(text_file: Path, out: Path) -> str:
    """Train on `text_file` in the new folder `out`; return what the model says after "You may"."""
    paragraphs = [part.strip() for part in text_file.read_text().split("\n\n") if part.strip()]
    out.mkdir(parents=True)

    tokenizer = api.train_tokenizer({"text": paragraphs}, out / "tokenizer", vocab_size=VOCAB_SIZE)

    documents = out / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": paragraph}) + "\n" for paragraph in paragraphs))
    built = api.build_shards([documents], tokenizer, out / "shards", heldout_fraction=0.1)
    print(f"{built.splits['train'].num_tokens:,} training tokens")

    result = api.train(
        DEBUG_CONFIG,
        f"run.folder={out / 'run'}",
        f"model.vocab_size={VOCAB_SIZE}",
        f'data.sources=[{{name = "text", path = "{out / "shards"}"}}]',
        "train.device=cpu",
        "train.tokens=40_960",
        "optimizer.learning_rate=0.005",
    )
    print(f"held-out text: {result.heldout['heldout_bits_per_byte']:.2f} bits per byte")

    completion = api.generate(result.model, "You may", max_tokens=40, temperature=0)
    return completion.text


if __name__ == "__main__":
    print("You may" + main(Path(sys.argv[1]), Path(sys.argv[2])))
