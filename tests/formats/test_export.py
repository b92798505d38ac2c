"""Exports as Hugging Face folders, with their card, of models of ours and of others; runs of two ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf.constants import GGMLQuantizationType as Quantization
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from criadero import files
from criadero.carbon.ledger import read_segments, total
from criadero.checkpoint.manifest import read_manifest as read_checkpoint_manifest
from criadero.errors import RunError, UsageError
from criadero.formats.exporting import export_gguf, export_huggingface
from criadero.formats.load import load_model, load_tokenizer, open_model
from criadero.report.model_facts import training_facts
from criadero.runs import METRICS, read_metrics
from criadero.shards.manifest import read_manifest as read_shards_manifest
from faults.program import run_on_ranks
from foreign_models import TOKENS_BT, logits, random_llama, write_gguf
from tiny_run import STEP_TOKENS, TinyRun

TEXT = "the old mill turns slowly by night"


def export(source: Path, out: Path, **options: Any) -> Path:
    export_huggingface(source, out, facts_of=training_facts, **options)
    return out


@pytest.fixture(scope="module")
def two_ranks(tiny: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of 12 steps on two ranks, with the checkpoints of steps 5, 10 and 12."""
    folder = tmp_path_factory.mktemp("two")
    for ended in run_on_ranks(2, "train", tiny.config(folder, steps=12), folder=folder):
        assert ended.code == 0, ended.err
    return folder / "run"


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:08d}"


def greedy(folder: Path, prompt: list[int], count: int = 32) -> list[int]:
    model, ids = load_model(folder).model, list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def test_transformers_computes_the_same_and_writes_the_same_tokens(two_ranks: Path, tmp_path: Path) -> None:
    out = export(checkpoint(two_ranks, 10), tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(out, dtype="auto", attn_implementation="eager").eval()
    ours = load_model(checkpoint(two_ranks, 10))
    torch.testing.assert_close(logits(theirs), logits(ours.model), atol=1e-5, rtol=1e-5)
    assert ours.tokenizer is not None
    prompt = ours.tokenizer.encode(TEXT, bos=True)
    assert AutoTokenizer.from_pretrained(out)(TEXT).input_ids == prompt
    settings = GenerationConfig(max_new_tokens=32, do_sample=False, eos_token_id=None, pad_token_id=0)
    theirs.generation_config.eos_token_id = None
    found = theirs.generate(torch.tensor([prompt]), generation_config=settings)[0, len(prompt) :].tolist()
    assert found == greedy(checkpoint(two_ranks, 10), prompt)


def test_a_checkpoint_of_two_ranks_becomes_the_same_model_in_both_forms(
    two_ranks: Path, tmp_path: Path
) -> None:
    source = checkpoint(two_ranks, 5)
    assert read_checkpoint_manifest(source).world_size == 2
    folder = export(source, tmp_path / "hf")
    file = tmp_path / "m.gguf"
    export_gguf(source, file, facts_of=training_facts, dtype="f32")
    for out in (folder, file):
        before, after = open_model(source).tensors, open_model(out).tensors
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name].read(), after[name].read()) for name in before)
        assert open_model(out).config == open_model(source).config
        assert load_tokenizer(out).encode(TEXT) == load_tokenizer(source).encode(TEXT)


def test_the_card_says_what_the_run_recorded(two_ranks: Path, tiny: TinyRun, tmp_path: Path) -> None:
    card = (export(checkpoint(two_ranks, 10), tmp_path / "hf") / "README.md").read_text()
    rows = {row["step"]: row for row in read_metrics(two_ranks / METRICS) if "loss" in row}
    (bits,) = (
        row["heldout_bits_per_byte"]
        for row in read_metrics(two_ranks / METRICS)
        if row["step"] == 10 and "heldout_bits_per_byte" in row
    )
    split = read_shards_manifest(tiny.shards / "train")
    joules = total(read_segments(two_ranks)).joules
    for line in (
        "# run",
        "| run | run |",
        "| steps | 10 |",
        f"| tokens | {10 * STEP_TOKENS:,} |",
        f"| loss, nats per token | {rows[10]['loss']:.4g} |",
        f"| held-out text, bits per byte | {bits:.4g} (step 10) |",
        f"| tiny | 100.0% | {split.num_tokens:,} | {split.num_documents:,} | "
        f"{files.format_bytes(split.num_bytes)} |",
        "Not known. State here under which terms the weights may be used.",
    ):
        assert line in card.splitlines(), card
    assert f"sha256 of the shards {split.fingerprint}" in card
    assert f"{joules / 3.6e6:.4g} kWh for all attempts of the run" in card
    assert f"{joules / 3.6e6 * 0.385:.4g} kg CO2e at 0.385 kg per kWh" in card
    assert "license:" not in card


def test_the_finished_model_of_a_run_knows_its_run_and_a_copy_its_steps(
    two_ranks: Path, tmp_path: Path
) -> None:
    facts = training_facts(open_model(two_ranks))
    assert (facts.run, facts.step, facts.tokens) == ("run", 12, 12 * STEP_TOKENS)
    assert facts.energy is not None
    assert facts.loss is not None
    copied = export(two_ranks, tmp_path / "hf", dtype=torch.bfloat16)
    assert "| precision | bfloat16 |" in (copied / "README.md").read_text()
    moved = two_ranks.parent / "elsewhere"
    if not moved.exists():
        (two_ranks / "model").rename(moved)
    alone = training_facts(open_model(moved))
    moved.rename(two_ranks / "model")
    assert (alone.run, alone.step, alone.energy, alone.data) == ("run", 12, None, ())


def test_a_card_of_a_model_made_by_others_says_not_known(tmp_path: Path) -> None:
    random_llama().save_pretrained(tmp_path / "hf")
    card = (export(tmp_path / "hf", tmp_path / "out") / "README.md").read_text()
    for line in ("| steps | not known |", "| loss, nats per token | not known |",
                 "| held-out text, bits per byte | not known |", "Not known."):  # fmt: skip
        assert line in card.splitlines()
    assert "# hf" in card.splitlines()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["files"]["README.md"]["sha256"] == files.sha256_bytes(card.encode())


@pytest.mark.parametrize(
    ("front", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# m", "apache-2.0"),
        ("---\nlicense:\n- mit\n---\n", None),
        ("license: mit\n", None),
        ("---\nlicense: 'x'; rm\n---\n", None),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(front: str, licence: str | None, tmp_path: Path) -> None:
    random_llama().save_pretrained(tmp_path / "hf")
    (tmp_path / "hf" / "README.md").write_text(front)
    card = (export(tmp_path / "hf", tmp_path / "out") / "README.md").read_text()
    assert (f"license: {licence}\n" in card) == (licence is not None)
    assert ("Not known. State here" in card) == (licence is None)
    export_gguf(tmp_path / "hf", tmp_path / "m.gguf", facts_of=training_facts)
    assert training_facts(open_model(tmp_path / "m.gguf")).licence == licence


def test_records_that_are_damaged_are_not_known_and_no_error(two_ranks: Path, tmp_path: Path) -> None:
    run = tmp_path / "damaged"
    for name in ("config.toml", METRICS):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_bytes((two_ranks / name).read_bytes())
    (run / "checkpoints").symlink_to(two_ranks / "checkpoints")
    (run / "energy.jsonl").write_text('{"format_version": 99}\n')
    (run / "environment.json").write_text("{")
    facts = training_facts(open_model(run / "checkpoints" / "step-00000005"))
    assert (facts.run, facts.step, facts.energy, facts.git_commit) == ("damaged", 5, None, None)


def test_quantised_weights_become_float16_by_default(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", random_llama(), Quantization.Q4_0)
    out = export(tmp_path / "m.gguf", tmp_path / "hf")
    assert open_model(out).dtype == torch.float16
    assert logits(load_model(out).model).shape == (*TOKENS_BT.shape, 271)


def test_existing_outputs_and_outputs_inside_the_source_are_refused(tmp_path: Path) -> None:
    random_llama().save_pretrained(tmp_path / "hf")
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="exists already"):
        export(tmp_path / "hf", tmp_path / "out")
    with pytest.raises(UsageError, match="inside the source"):
        export(tmp_path / "hf", tmp_path / "hf" / "out")
