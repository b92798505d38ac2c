"""The model file: answers as a naive reading of ARPA, distributions that sum to 1, damage found."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import naive_ngram
from criadero.corpus.ngram import hashing, model, table
from criadero.corpus.ngram.arpa import convert
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.train import train
from criadero.errors import DataError

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> tuple[NgramModel, naive_ngram.Model]:
    """The 5-gram of lmplz, as our file and as a dictionary."""
    folder = tmp_path_factory.mktemp("prose")
    convert(GOLDEN / "prose-5.arpa.gz", folder / "model", folder=folder)
    text = gzip.decompress((GOLDEN / "prose-5.arpa.gz").read_bytes()).decode()
    return NgramModel.open(folder / "model"), naive_ngram.read_arpa(text)


def prose_lines() -> list[list[str]]:
    text = gzip.decompress((GOLDEN / "prose.txt.gz").read_bytes()).decode()
    return [[word for word in line.split(" ") if word] for line in text.split("\n")[:-1]]


def test_seen_and_unseen_text_is_scored_as_a_naive_reading_of_arpa_does(
    prose: tuple[NgramModel, naive_ngram.Model],
) -> None:
    ours, entries = prose
    rng = np.random.default_rng(0)
    lines = prose_lines()
    words = [word for line in lines for word in line]
    lines = lines[:20] + [list(rng.choice(words, 30)) for _ in range(20)] + [["zyx", *lines[3], "zyx"], []]
    for line in lines:
        found = ours.log10_probabilities(ours.ids(line))
        wanted = naive_ngram.log10_probabilities(entries, 5, line)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        assert ours.log10_probability(ours.ids(line)) == pytest.approx(sum(wanted), abs=1e-4)


def test_sentences_in_a_batch_and_in_blocks_score_as_each_alone(
    prose: tuple[NgramModel, naive_ngram.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = prose
    sentences = [ours.ids(line) for line in [*prose_lines()[:30], [], ["a"]]]
    alone = [ours.log10_probabilities(ids) for ids in sentences]
    monkeypatch.setattr(model, "_BLOCK_WORDS", 7)
    for batch in (ours.log10_probabilities_of(sentences), [ours.log10_probabilities(i) for i in sentences]):
        for found, wanted in zip(batch, alone, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert ours.log10_probabilities_of([]) == []


words = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=6)


@settings(deadline=None, max_examples=30)
@given(sentences=st.lists(words, min_size=1, max_size=25), context=words, order=st.integers(1, 5))
def test_probabilities_of_all_words_sum_to_one_after_any_context(
    sentences: list[list[str]], context: list[str], order: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("model") / "model"
    train(sentences, path, NgramConfig(order=order, memory_bytes=1 << 20))
    ours = NgramModel.open(path)
    before = ours.ids(context)
    candidates = [np.append(before, word) for word in (0, *range(3, len(ours.words)))]
    after = [ours.log10_probabilities(ids)[len(before)] for ids in candidates]
    end = ours.log10_probabilities(before)[-1]
    assert sum(10**value for value in [*after, end]) == pytest.approx(1, abs=1e-5)


def test_unknown_words_and_the_names_of_the_ends_get_the_id_of_unk(
    prose: tuple[NgramModel, naive_ngram.Model],
) -> None:
    ours, _ = prose
    assert ours.ids(["<s>", "</s>", "<unk>", "zyx"]).tolist() == [0, 0, 0, 0]
    assert ours.ids([]).dtype == np.int32
    assert [ours.words[i] for i in ours.ids(["the", "of"])] == ["the", "of"]


def test_ids_outside_the_vocabulary_are_refused(prose: tuple[NgramModel, naive_ngram.Model]) -> None:
    for wrong in (-1, len(prose[0].words)):
        with pytest.raises(DataError, match="ids must be in"):
            prose[0].log10_probability(np.array([3, wrong]))


def test_numbers_of_ngrams_do_not_depend_on_the_machine() -> None:
    # Model files travel; these are worked out with Python integers.
    def number(ids: list[int], seed: int) -> int:
        value = (seed * 0xD6E8FEB86659FD93 + 0x2545F4914F6CDD1D) % 2**64
        for word in reversed(ids):
            value ^= (word + 1) * 0x9E3779B97F4A7C15 % 2**64
            value = value * 0xFF51AFD7ED558CCD % 2**64
            value ^= value >> 32
            value = value * 0x9E3779B97F4A7C15 % 2**64
            value ^= value >> 32
        return value

    found = hashing.first(np.array([5, 4_000_000_000]), 3)
    assert [int(value) for value in found] == [number([5], 3), number([4_000_000_000], 3)]
    longer = hashing.extend(found, np.array([0, 7]))
    assert [int(value) for value in longer] == [number([0, 5], 3), number([7, 4_000_000_000], 3)]


def test_two_ngrams_that_share_a_number_get_another_seed(tmp_path: Path) -> None:
    def records(seed: int) -> Iterator[np.ndarray]:
        block = np.zeros(3, table.RECORD)
        block["number"] = [7, 9, 7 if seed == 0 else 8]
        yield block

    contents = table.Contents(
        words=("<unk>", "<s>", "</s>"),
        unigrams=np.zeros((3, 2), np.float32),
        counts=(3, 3),
        records=records,
        source="a test",
    )
    table.write(tmp_path / "model", contents, folder=tmp_path, memory_bytes=1 << 20)
    assert table.read_header(tmp_path / "model").seed == 1


ELSEWHERE = """
import sys
from pathlib import Path
from criadero.corpus.ngram.model import NgramModel
model = NgramModel.open(Path(sys.argv[1]))
print(repr(model.log10_probability(model.ids(sys.argv[2:]))))
"""


def test_another_process_with_the_same_file_gives_the_same_answer(
    prose: tuple[NgramModel, naive_ngram.Model],
) -> None:
    ours, _ = prose
    line = prose_lines()[0]
    command = [sys.executable, "-c", ELSEWHERE, str(ours.path), *line]
    elsewhere = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert float(elsewhere) == ours.log10_probability(ours.ids(line))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    train(["a b c a b", "b c"], tmp_path / "model", NgramConfig(order=3))
    return tmp_path / "model"


def test_arrays_begin_at_multiples_of_64_bytes(trained: Path) -> None:
    offsets, end = table.read_header(trained).offsets()
    assert all(offset % 64 == 0 for offset in offsets.values())
    assert end == trained.stat().st_size


def test_a_cut_file_is_found_when_it_is_opened(trained: Path) -> None:
    data = trained.read_bytes()
    for length in (0, 7, 100, 4096, len(data) - 1):
        trained.write_bytes(data[:length])
        with pytest.raises(DataError, match="n-gram model"):
            NgramModel.open(trained)


def test_a_flipped_byte_is_found_when_asked_to_verify(trained: Path) -> None:
    data = bytearray(trained.read_bytes())
    data[4100] ^= 1
    trained.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        NgramModel.open(trained, verify=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 2, "format version 2"),
        ("counts", [5, 2], "cannot be"),
        ("counts", [-1, 2, 3], "cannot be"),
        ("counts", 7, "damaged"),
        ("order", 10**9, "cannot be"),
        ("places", 2**62, "cannot be"),
        ("capacity", 0, "cannot be"),
        ("seed", "x", "cannot be"),
        ("other", 1, "damaged"),
    ],
)
def test_a_header_that_cannot_be_is_refused(trained: Path, key: str, value: object, message: str) -> None:
    data = trained.read_bytes()
    header = json.loads(data[8:4096].rstrip(b"\0"))
    header[key] = value
    trained.write_bytes(data[:8] + json.dumps(header).encode().ljust(4088, b"\0") + data[4096:])
    with pytest.raises(DataError, match=message):
        NgramModel.open(trained)


@settings(deadline=None, max_examples=50)
@given(position=st.integers(8, 8000), value=st.integers(0, 255))
def test_no_damaged_file_crashes_or_hangs(
    position: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("model") / "model"
    train(["a b c a b", "b c"], path, NgramConfig(order=3))
    data = bytearray(path.read_bytes())
    data[position % len(data)] = value
    path.write_bytes(data)
    try:
        damaged = NgramModel.open(path)
        score = damaged.log10_probability(damaged.ids(["a", "b", "c"]))
    except DataError:
        return
    assert isinstance(score, float)  # of any value: numbers are checked only with verify=True
