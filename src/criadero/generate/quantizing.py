"""A model written with fewer bits a weight, and what that does to its perplexity.

Entry point: `quantize_model`. Matrices become Q8_0 blocks, or Q4_1 for 4 bits, where embedding and output
stay at Q8_0. Source and result are scored on the same text: the user's, or the opening of A Scandal in
Bohemia by Arthur Conan Doyle (1892, in the public domain; samples/raw/books says where it was taken from),
which the package brings along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from criadero import files
from criadero.formats.exporting import export_gguf
from criadero.formats.model_card import TrainingFacts
from criadero.formats.stored import StoredModel
from criadero.generate.load import load_generator
from criadero.generate.memory import ServingMemory, serving_memory
from criadero.generate.perplexity import Perplexity, perplexity
from criadero.model.config import ModelConfig

Bits = Literal[4, 8]
_DTYPES = {4: "q4_1", 8: "q8_0"}
_ENDS_DTYPE = "q8_0"


@dataclass(frozen=True)
class QuantizedModel:
    """What was written and what it does to the text."""

    kind: str
    """Of the source, in words."""
    parameters: int
    size_bytes: int
    """Of the file written."""
    before: Perplexity
    after: Perplexity
    config: ModelConfig
    memory: ServingMemory
    """What the result takes when it answers with its context full."""

    @property
    def change(self) -> float:
        """By how much of itself the perplexity rose."""
        return self.after.perplexity / self.before.perplexity - 1


def sample_text() -> str:
    """Return the text that the package brings along, 24 kB of English prose."""
    return (resources.files("criadero.generate") / "sherlock-holmes.txt").read_text(encoding="utf-8")


def quantize_model(
    source: Path,
    out: Path,
    *,
    bits: Bits,
    facts_of: Callable[[StoredModel], TrainingFacts],
    text: str | None = None,
    device: str | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> QuantizedModel:
    """Write the model at `source` as a quantised GGUF file and score both.

    Args:
        source: anything `load_generator` reads.
        out: must not exist, nor lie inside the source.
        bits: a weight; matrices that are in blocks of the kind wanted already are copied.
        facts_of: finds what is known of how the model was made; the licence goes into the file.
        text: to score; None for `sample_text()`.
        device: to score on; None takes a GPU if there is one.
        on_progress: called with what is being scored, tokens done and tokens in all.

    Raises:
        UsageError: `out` lies inside the source.
        RunError: `out` exists, or cannot be written.
        DataError: the text is too short.
        FormatError, CheckpointError, TokenizerError: as `load_generator` and `export_gguf`.
        ResourceError: no such device, or the disk has no room.
    """
    files.require_new(out)
    text = sample_text() if text is None else text
    before, _ = _score(source, text, device=device, what="before", on_progress=on_progress)
    written = export_gguf(source, out, facts_of=facts_of, dtype=_DTYPES[bits], ends_dtype=_ENDS_DTYPE)
    after, config = _score(out, text, device=device, what="after", on_progress=on_progress)
    return QuantizedModel(
        kind=written.kind,
        parameters=written.parameters,
        size_bytes=written.size_bytes,
        before=before,
        after=after,
        config=config,
        memory=serving_memory(
            config, weights="4 bits" if bits == 4 else "8 bits", context_tokens=config.max_seq_len
        ),
    )


def _score(
    model: Path,
    text: str,
    *,
    device: str | None,
    what: str,
    on_progress: Callable[[str, int, int], None] | None,
) -> tuple[Perplexity, ModelConfig]:
    """Load a model, score the text, let the model go."""
    opened = load_generator(model, device=device)
    found = perplexity(
        opened.generator.model,
        opened.generator.tokenizer,
        text,
        on_progress=None if on_progress is None else lambda done, total: on_progress(what, done, total),
    )
    return found, opened.loaded.config
