"""The demo at full size: what `make demo` promises, seen from outside."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from criadero import files

ROOT = Path(__file__).parent.parent.parent
MARGIN_OVER_XZ = 0.15
SOURCES = {"commoncrawl", "c4", "github", "wikipedia", "books", "arxiv", "stackexchange"}

pytestmark = [pytest.mark.demo, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a whole demo run made now, and what it printed.

    In a clean checkout that is `make demo` itself; an earlier run's folder is left alone.
    """
    if (ROOT / "runs" / "demo").exists():
        place = tmp_path_factory.mktemp("demo")
        command = [sys.executable, "-m", "criadero", "demo", str(ROOT / "configs" / "demo.toml")]
        command += ["--recipe", str(ROOT / "samples" / "recipe.toml")]
    else:
        place, command = ROOT, ["make", "demo"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return place / "runs" / "demo", done.stdout


@pytest.fixture(scope="module")
def summary(demo: tuple[Path, str]) -> dict:
    return json.loads((demo[0] / "summary.json").read_text())


def test_the_model_beats_xz_by_a_margin(summary: dict):
    print(json.dumps(summary, indent=1))
    limit = (1 - MARGIN_OVER_XZ) * summary["xz_bits_per_byte_alone"]
    assert summary["heldout_bits_per_byte"] <= limit


def test_the_corpus_has_all_seven_sources_and_their_card(demo: tuple[Path, str]):
    corpus = demo[0] / "corpus"
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert set(manifest["sources"]) == SOURCES
    assert all(source["documents"] > 0 for source in manifest["sources"].values())
    assert all(f"### {name}" in (corpus / "card.md").read_text() for name in SOURCES)


def test_bits_per_byte_is_what_the_model_folder_gives(demo: tuple[Path, str], summary: dict):
    """All held-out text scored anew by another implementation."""
    from transformers import AutoModelForCausalLM

    from criadero.shards.read import ShardSet

    model = AutoModelForCausalLM.from_pretrained(demo[0] / "model", dtype=torch.float32)
    loss_nats, num_bytes = 0.0, 0
    for split in sorted((demo[0] / "shards").glob("*/heldout")):
        shards = ShardSet(split)
        ids = torch.from_numpy(shards.tokens(0, shards.num_tokens).astype("int64"))
        whole = ids[: (len(ids) - 1) // 256 * 256 + 1].unfold(0, 257, 256)
        with torch.no_grad():
            for windows in whole.split(16):
                loss_nats += float(model(windows, labels=windows).loss) * windows[:, 1:].numel()
        num_bytes += shards.num_bytes
    rescored = loss_nats / math.log(2) / num_bytes
    # Float32 instead of bfloat16, and the last windows of each source are left out: close, not equal.
    assert rescored == pytest.approx(summary["heldout_bits_per_byte"], rel=0.01)


def test_the_run_folder_holds_what_was_promised(demo: tuple[Path, str]):
    folder = demo[0]
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["heldout_bits_per_byte"] < rows[-1]["heldout_loss"] / math.log(2)
    manifest = json.loads((folder / "model" / "manifest.json").read_text())
    for name, sha256 in manifest["files"].items():
        expected = sha256["sha256"] if isinstance(sha256, dict) else sha256
        assert files.sha256_file(folder / "model" / name) == expected
    assert list((folder / "checkpoints").glob("step-*/manifest.json"))


def test_the_output_names_numbers_and_next_commands(demo: tuple[Path, str], summary: dict):
    output = demo[1]
    assert f"{summary['heldout_bits_per_byte']:.3f}" in output
    assert f"{summary['ngram_bits_per_byte']:.3f}" in output
    assert f"{summary['xz_bits_per_byte_alone']:.3f}" in output
    assert f"{summary['xz_bits_per_byte_after_training_text']:.3f}" in output
    assert summary["sample"] in output
    assert "kWh" in output
    assert "criadero chat runs/demo/model" in output


def test_the_model_generates(demo: tuple[Path, str]):
    command = [sys.executable, "-m", "criadero", "generate", str(demo[0] / "model"), "The people"]
    command += ["--max-tokens", "16", "--temperature", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.split()) >= 5
