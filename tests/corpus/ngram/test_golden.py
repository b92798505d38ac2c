"""Training gives what lmplz gives: every n-gram, its probability and its backoff, in the same order."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from criadero import notices
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.train import train

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text())

# float32 of numbers below 8 is 4.8e-7 apart; lmplz takes the logarithm in float32, here it is rounded once.
LAST_PLACE = 1e-6

Entries = list[tuple[str, float, float]]


@pytest.fixture(autouse=True)
def _nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_said", set())


def entries(arpa: str) -> Entries:
    """N-gram, log10 probability, log10 backoff of every line of an ARPA file, in its order."""
    fields = (line.split("\t") for line in arpa.split("\n") if "\t" in line)
    return [(part[1], float(part[0]), float(part[2]) if len(part) > 2 else 0.0) for part in fields]


def golden_text(name: str) -> str:
    content = gzip.decompress((GOLDEN / f"{name}.txt.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == MANIFEST["texts"][name]
    return content.decode()


def golden_arpa(case: str) -> str:
    content = gzip.decompress((GOLDEN / f"{case}.arpa.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == MANIFEST["models"][case]["sha256"]
    return content.decode()


def trained_arpa(text: str, order: int, folder: Path, memory_bytes: int = 1 << 28) -> str:
    config = NgramConfig(order=order, memory_bytes=memory_bytes)
    train(text.split("\n")[:-1], folder / "model", config, arpa=folder / "model.arpa")
    return (folder / "model.arpa").read_bytes().decode()


def assert_equal_models(ours: str, theirs: str) -> None:
    assert ours.partition("\n\n")[0] == theirs.partition("\n\n")[0]
    found, wanted = entries(ours), entries(theirs)
    assert [entry[0] for entry in found] == [entry[0] for entry in wanted]
    numbers = np.array([entry[1:] for entry in found]), np.array([entry[1:] for entry in wanted])
    np.testing.assert_allclose(*numbers, rtol=0, atol=LAST_PLACE)


@pytest.mark.parametrize("case", MANIFEST["models"])
def test_every_entry_equals_that_of_lmplz(case: str, tmp_path: Path) -> None:
    model = MANIFEST["models"][case]
    ours = trained_arpa(golden_text(model["text"]), model["order"], tmp_path)
    assert_equal_models(ours, golden_arpa(case))


def test_a_model_does_not_depend_on_how_little_memory_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_blocks(monkeypatch)
    ours = trained_arpa(golden_text("prose"), 5, tmp_path, memory_bytes=1 << 20)
    assert_equal_models(ours, golden_arpa("prose-5"))


def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a small text need many runs, many buckets and many blocks."""
    from criadero.corpus.ngram import count, external, smooth

    monkeypatch.setattr(count, "_MIN_BLOCK", 1 << 11)
    monkeypatch.setattr(count, "_BYTES_PER_ROW", 1 << 12)
    monkeypatch.setattr(smooth, "_MIN_ROWS", 1 << 11)
    monkeypatch.setattr(smooth, "_BYTES_PER_ROW", 1 << 12)
    monkeypatch.setattr(external, "_WINDOW_ROWS", 1 << 6)


def test_discounts_that_cannot_be_computed_are_replaced_and_said_as_lmplz_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trained_arpa(golden_text("tiny"), 5, tmp_path)
    said = " ".join(record.message for record in caplog.records)
    orders = [int(order) for order in re.findall(r"discounts 0.5, 1 and 1.5 for (\d)-grams", said)]
    assert orders == MANIFEST["models"]["tiny-5"]["orders_with_fallback"]
