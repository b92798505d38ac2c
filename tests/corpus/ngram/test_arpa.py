"""ARPA files of lmplz and others, and what is wrong with malformed ones, by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.ngram import arpa
from criadero.corpus.ngram.arpa import convert, open_any
from criadero.corpus.ngram.config import NgramConfig
from criadero.corpus.ngram.model import NgramModel
from criadero.corpus.ngram.train import train
from criadero.errors import CriaderoError, DataError, FormatError

# As SRILM's ngram-count writes it: text before \data\, no <unk>, -99 for <s>, blanks for tabs, few backoffs.
SRILM = """
made by hand

\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-0.4771 </s>
-99\t<s> -0.30103
-0.4771\ta\t-0.30103
-0.6021\tb

\\2-grams:
-0.1761 <s> a
-0.3010\ta b
-0.2\tb </s>

\\end\\
"""


def test_a_file_in_the_manner_of_srilm_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.arpa").write_text(SRILM)
    with open_any(tmp_path / "model.arpa") as model:
        assert model.words == ("<unk>", "<s>", "</s>", "a", "b")
        found = model.log10_probabilities(model.ids(["a", "a", "b", "z"]))
        # a | <s>; backoff of a, a; b | a; <unk> is -100 and b has no backoff; </s> alone.
        assert found == pytest.approx([-0.1761, -0.30103 - 0.4771, -0.3010, -100, -0.4771])


def test_what_is_written_is_read_back_with_the_same_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    sentences = [list(rng.choice(list("abcdefgh"), 12)) for _ in range(100)]
    for name in ("m.arpa", "m.arpa.gz"):
        train(sentences, tmp_path / "model", NgramConfig(order=4), arpa=tmp_path / name)
        ours = NgramModel.open(tmp_path / "model")
        with open_any(tmp_path / name) as read:
            assert read.words == ours.words
            ids = ours.ids(list("abhgfzaab"))
            np.testing.assert_array_equal(read.log10_probabilities(ids), ours.log10_probabilities(ids))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("\\data\\", "data", 20, "no `.data.` line"),
        ("ngram 2=3", "ngram 3=3", 6, "expected `ngram 2=COUNT`"),
        ("ngram 2=3", "ngram 2=x", 6, "expected `ngram 2=COUNT`"),
        ("ngram 2=3", "ngram 2=999999999999", 6, "more than this program reads"),
        ("ngram 2=3", "ngram 2=4", 18, "2 words"),
        ("ngram 2=3", "ngram 2=2", 17, "expected `.end.`"),
        ("ngram 1=4", "ngram 1=3", 12, "expected `.2-grams:`"),
        ("\\2-grams:", "\\3-grams:", 14, "expected `.2-grams:`"),
        ("-0.4771 </s>", "-0.4771", 9, "a probability, 1 word"),
        ("-0.4771 </s>", "0.4771 </s>", 9, "impossible"),
        ("-0.4771 </s>", "nan </s>", 9, "impossible"),
        ("-0.4771 </s>", "minus </s>", 9, "not a number"),
        ("-0.4771 </s>", "-0.4771 a", 11, "the word b'a' is named twice"),
        ("\ta\t", "\t</s>\t", 11, "named twice"),
        ("-99\t<s>", "-99\t<t>", 12, "no word `<s>`"),
        ("\ta b", "\ta c", 16, "b'c' is not among the 1-grams"),
        ("\ta b", "\ta b\t-0.5", 16, "2 words, found"),
        ("\\end\\", "", 20, "expected `.end.`"),
    ],
)
def test_a_malformed_file_is_an_error_with_its_line(
    old: str, new: str, line: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.arpa"
    path.write_text(SRILM.replace(old, new, 1))
    with pytest.raises(FormatError, match=message) as caught:
        convert(path, tmp_path / "model", folder=tmp_path)
    assert f"line {line}:" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_an_ngram_named_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.arpa").write_text(SRILM.replace("-0.2\tb </s>", "-0.2\ta b"))
    with pytest.raises(DataError, match="named twice"), open_any(tmp_path / "m.arpa"):
        pass


def test_a_word_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa"
    path.write_bytes(SRILM.encode().replace(b"\tb\n", b"\t\xff\n"))
    with pytest.raises(FormatError, match="not UTF-8"):
        convert(path, tmp_path / "model", folder=tmp_path)


def test_an_endless_line_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arpa, "MAX_LINE_BYTES", 1000)
    (tmp_path / "m.arpa").write_text(SRILM.replace("\tb\n", "\t" + "b" * 2000))
    with pytest.raises(FormatError, match="line 12: a line of more than 1,000 bytes"):
        convert(tmp_path / "m.arpa", tmp_path / "model", folder=tmp_path)


def test_a_cut_or_false_gzip_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "m.arpa.gz"
    for content in (gzip.compress(SRILM.encode())[:-20], SRILM.encode()):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="compressed data is damaged"):
            convert(path, tmp_path / "model", folder=tmp_path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        convert(tmp_path / "m.arpa", tmp_path / "model", folder=tmp_path)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_no_bytes_crash_the_reader(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("arpa")
    content = bytearray(SRILM.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content)))
        stop = data.draw(st.integers(start, min(len(content), start + 12)))
        content[start:stop] = data.draw(st.binary(max_size=12))
    (folder / "m.arpa").write_bytes(content)
    try:
        convert(folder / "m.arpa", folder / "model", folder=folder)
    except CriaderoError:
        return
    model = NgramModel.open(folder / "model")
    assert not np.isnan(model.log10_probability(model.ids(["a", "b"])))
