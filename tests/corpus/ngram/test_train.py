"""Training: against a naive estimate, within its memory, and what it refuses."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_ngram
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.smooth import discounts
from criadero.corpus.ngram.train import NgramProgress, train, train_on_tokens
from criadero.errors import DataError, RunError

SMALL = NgramConfig(order=3, memory_bytes=1 << 20)

sentences = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "ü", "🦙"]), max_size=7), min_size=1, max_size=30
)


@settings(deadline=None, max_examples=60)
@given(sentences=sentences, order=st.integers(1, 6))
def test_any_text_gets_the_probabilities_of_a_naive_estimate(
    sentences: list[list[str]], order: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("model")
    config = NgramConfig(order=order, memory_bytes=1 << 20)
    train(sentences, folder / "model", config, arpa=folder / "model.arpa")
    found = naive_ngram.read_arpa((folder / "model.arpa").read_text(encoding="utf-8"))
    wanted = naive_ngram.estimate(sentences, order)
    assert found.keys() == wanted.keys()
    for gram, numbers in wanted.items():
        assert found[gram] == pytest.approx(numbers, abs=1e-5), gram


def test_a_hand_worked_bigram_model(tmp_path: Path) -> None:
    # "a b" and "a": too little for discounts, so that 0.5 is taken off counts of 1, and 1 off counts of 2.
    # Bigrams: <s> a (2), a b, b </s>, a </s>. Adjusted counts: a 1 (after <s>), b 1 (a), </s> 2 (b, a).
    # Freed: (0.5 + 0.5 + 1) / 4 = 0.5, shared by a, b, </s>, <unk>: p(a) = 0.5/4 + 0.5/4 = 0.25.
    # After a: b 1, </s> 1, freed (0.5 + 0.5) / 2 = 0.5: p(b | a) = 0.5/2 + 0.5 * p(b) = 0.25 + 0.125 = 0.375.
    train(["a b", "a"], tmp_path / "model", NgramConfig(order=2))
    model = NgramModel.open(tmp_path / "model")
    values = 10 ** model.log10_probabilities(model.ids(["a", "b"]))
    # p(a | <s>) = (2 - 1) / 2 + (1 / 2) * 0.25; p(</s> | b) = 0.5 + 0.5 * p(</s>), p(</s>) = 1/4 + 0.5/4.
    assert values == pytest.approx([0.625, 0.375, 0.5 + 0.5 * 0.375])
    assert 10 ** model.log10_probabilities(model.ids(["z"]))[0] == pytest.approx(0.5 * 0.125)


def test_tokens_give_the_model_of_the_same_numbers_written_as_words(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    documents = [rng.integers(0, 40, rng.integers(0, 30)) * 997 for _ in range(200)]
    train_on_tokens(documents, tmp_path / "tokens", SMALL, arpa=tmp_path / "tokens.arpa")
    train(
        [" ".join(map(str, tokens)) for tokens in documents], tmp_path / "words", SMALL, arpa=tmp_path / "a"
    )
    assert (tmp_path / "tokens.arpa").read_bytes() == (tmp_path / "a").read_bytes()
    model, words = NgramModel.open(tmp_path / "tokens"), NgramModel.open(tmp_path / "words")
    np.testing.assert_array_equal(model.token_ids(documents[0]), words.ids(list(map(str, documents[0]))))
    assert model.token_ids(np.array([1, 997, -1, 1 << 40])).tolist()[::2] == [0, 0]
    with pytest.raises(DataError, match="on words, not on token ids"):
        words.token_ids(documents[0])


def test_the_text_may_be_strings_or_words_and_blanks_are_those_of_lmplz(tmp_path: Path) -> None:
    train(["a b\u00a0c\td", ""], tmp_path / "1", SMALL)
    train([["a", "b\u00a0c", "d"], []], tmp_path / "2", SMALL)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("word", ["", "a b", "a\nb", "a\tb", "\0", "\ud800"])
def test_what_is_no_word_is_refused(word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="word"):
        train([["a", word]], tmp_path / "model", SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>"])
def test_the_words_of_the_model_itself_are_refused_or_skipped(word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"holds the word '{word}'"):
        train([f"a {word} b"], tmp_path / "model", SMALL)
    skipping = SMALL.model_copy(update={"skip_symbols": True})
    train([f"a {word} b"], tmp_path / "skipped", skipping)
    train(["a b"], tmp_path / "without", SMALL)
    assert (tmp_path / "skipped").read_bytes() == (tmp_path / "without").read_bytes()


def test_no_text_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        train([], tmp_path / "model", SMALL)


def test_without_fallback_text_that_gives_no_discounts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="no Kneser-Ney discounts for 1-grams: no n-gram has adjusted count 2"
    ):
        train(["a b"], tmp_path / "model", SMALL.model_copy(update={"discount_fallback": False}))


def test_a_reader_that_fails_leaves_nothing_behind_and_the_old_model_as_it_was(tmp_path: Path) -> None:
    def broken() -> object:
        yield "a b"
        raise DataError("the text ends")

    (tmp_path / "model").write_bytes(b"old")
    with pytest.raises(DataError, match="the text ends"):
        train(broken(), tmp_path / "model", SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == b"old"


@pytest.mark.parametrize("out", [".", "folder"])
def test_a_folder_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    def never() -> Iterator[str]:
        pytest.fail("the text was read")
        yield ""

    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="is a folder"):
        train(never(), Path(out), SMALL)


def test_progress_names_each_stage_in_order(tmp_path: Path) -> None:
    seen: list[NgramProgress] = []
    train(["a b c"], tmp_path / "model", SMALL, arpa=tmp_path / "a.gz", progress=seen.append)
    assert [step.stage for step in seen] == ["read", "count", "smooth", "write", "write ARPA"]
    assert seen[-1].num_tokens == 4
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).startswith(b"\\data\\\nngram 1=6\n")


PEAK_SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.train import train_on_tokens
rng = np.random.default_rng(0)
documents = ((rng.zipf(1.3, 1000) % 5000) for _ in range(int(sys.argv[1])))
train_on_tokens(documents, Path(sys.argv[2]), NgramConfig(order=4, memory_bytes=8 << 20))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_is_flat_when_the_text_grows_four_times(tmp_path: Path) -> None:
    def peak_bytes(documents: int) -> int:
        command = [sys.executable, "-c", PEAK_SCRIPT, str(documents), str(tmp_path / "model")]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    small, large = peak_bytes(150), peak_bytes(600)
    assert large - small < 4 << 20


def test_discounts_are_those_of_chen_and_goodman() -> None:
    # n1 .. n4 = 4, 2, 2, 3: Y = 4 / (4 + 2 * 2) = 1/2.
    # D1 = 1 - 2Y * 2/4, D2 = 2 - 3Y * 2/2, D3 = 3 - 4Y * 3/2.
    assert discounts(np.array([[9, 4, 2, 2, 3]]), fallback=False).tolist() == [[0, 0.5, 0.5, 0]]
    # With n4 = 4, D3 would be -1: out of range, which takes all four from the fallback.
    assert discounts(np.array([[9, 4, 2, 2, 4]]), fallback=True).tolist() == [[0, 0.5, 1, 1.5]]


KILLED_SCRIPT = """
import os, signal, sys
from pathlib import Path
from criadero.corpus.ngram.train import train
def kill(progress):
    if progress.stage == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
train(["a b c", "b c"], Path(sys.argv[1]), progress=kill)
"""


@pytest.mark.parametrize("stage", ["count", "smooth", "write"])
def test_a_killed_training_leaves_no_model_and_the_next_one_removes_its_files(
    stage: str, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    done = subprocess.run([sys.executable, "-c", KILLED_SCRIPT, str(out), stage], check=False)
    assert done.returncode == -9
    assert not out.exists()
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == ["model.work.tmp"]
    train(["a b c", "b c"], out)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
