"""llama.cpp runs the GGUF files we write: the same greedy tokens as ours, the same ids for a page of text.

It is built by `make benchmarks/peers/llamacpp/.venv/.ready`, which takes minutes; without it this is skipped.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from criadero.formats.exporting import export_gguf
from criadero.formats.load import LoadedModel, load_model
from criadero.formats.model_card import TrainingFacts
from criadero.tokenizer.sentencepiece_tokenizer import SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer
from foreign_models import random_llama
from packaged import packaged_file
from tokenizer_texts import FRAGMENTS, text_of_all_kinds, trained_sentencepiece

PEER = Path(__file__).resolve().parents[2] / "benchmarks" / "peers" / "llamacpp"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (PEER / ".venv" / ".ready").is_file(),
        reason="llama.cpp is not built: make benchmarks/peers/llamacpp/.venv/.ready",
    ),
]

PAGE = [
    "The capital of France is Paris. In 1984, 3.14159 times 1,000 was   a lot!\n\nIsn't it? They'LL know.",
    "def f(x):\n    return x**2  # \t tabs\r\n\n\n    if x >= 10: print(f'{x!r}')",
    "naïve e\u0301 ß ẞ ﬁ ① \u00a0 \u3000 \u200b Привет мир. Ελληνικά. שלום מרחבא",
    "吾輩は猫である。名前はまだ無い。 한국어 ภาษาไทย हिन्दी 🤷🏽\u200d♂️ 🇪🇸 𝕏",
    "  leading and trailing  ",
    "<|im_start|>user </s> <s> [INST] <0x41> <unk>",
]


def ask(file: Path, prompt: list[int], texts: list[str]) -> Any:
    question = {"file": str(file), "prompt": prompt, "count": 64, "texts": texts}
    command = [PEER / ".venv" / "bin" / "python", PEER / "answer.py"]
    done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@torch.no_grad()
def greedy(loaded: LoadedModel, prompt: list[int]) -> list[int]:
    """The whole text anew for each token, so that nothing but the model is compared."""
    ids = list(prompt)
    for _ in range(64):
        ids.append(int(loaded.model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]


def assert_ids_are_the_same(tokenizer: Tokenizer | None, texts: list[str], found: Any) -> None:
    assert tokenizer is not None
    different = [t for t, ids in zip(texts, found["texts"], strict=True) if tokenizer.encode(t) != ids]
    assert different == []
    ends = (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos)
    assert (found["bos"], found["eos"], found["opens_with_bos"]) == ends


def export(source: Path, out: Path, dtype: str) -> Path:
    export_gguf(source, out, facts_of=lambda stored: TrainingFacts(), dtype=dtype)
    return out


@pytest.mark.network
@pytest.mark.timeout(300)
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_smollm2_writes_the_same_64_tokens(dtype: str, tmp_path: Path) -> None:
    file = export(packaged_file("smollm2-gguf"), tmp_path / "m.gguf", dtype)
    ours = load_model(file)
    assert ours.tokenizer is not None
    prompt = ours.tokenizer.encode("The capital of France is")
    found = ask(file, prompt, PAGE)
    assert found["tokens"] == greedy(ours, prompt)
    assert_ids_are_the_same(ours.tokenizer, PAGE, found)


@pytest.mark.network
def test_a_file_exported_to_its_own_type_is_the_same_model(tmp_path: Path) -> None:
    source = packaged_file("smollm2-gguf")
    prompt = [504, 3575, 282, 4649, 314]
    found = ask(export(source, tmp_path / "m.gguf", "q4_1"), prompt, [])
    assert found["tokens"] == ask(source, prompt, [])["tokens"]


LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> SentencePieceTokenizer:
    return trained_sentencepiece(tmp_path_factory.mktemp("sentencepiece"), vocab_size=416)


# llama.cpp rounds activations to float16 where the weights are, which moves these logits by up to 0.02; these
# seeds give 64 tokens that lead the next likeliest by more.
@pytest.mark.parametrize("dtype", ["f32", "f16"])
@pytest.mark.parametrize(
    ("seed", "shape"),
    [(10, {}), (8, {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE})],
    ids=["plain", "tied-llama3rope"],
)
def test_a_tiny_model_with_a_sentencepiece_vocabulary_writes_the_same_64_tokens(
    seed: int, shape: dict[str, Any], dtype: str, sentencepiece: SentencePieceTokenizer, tmp_path: Path
) -> None:
    sizes = {"vocab_size": 448, "max_position_embeddings": 512}  # 32 rows more than there are tokens
    random_llama(seed, **sizes, **shape).save_pretrained(tmp_path / "hf")
    sentencepiece.save(tmp_path / "hf")
    file = export(tmp_path / "hf", tmp_path / "m.gguf", dtype)
    ours = load_model(file)
    texts = [*PAGE, *FRAGMENTS[:16], text_of_all_kinds(9, 200)]
    prompt = sentencepiece.encode(text_of_all_kinds(5, 60), bos=True)[:100]
    found = ask(file, prompt, texts)
    assert found["tokens"] == greedy(ours, prompt)
    assert_ids_are_the_same(ours.tokenizer, texts, found)
