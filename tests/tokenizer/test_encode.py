"""Encoding with SentencePiece vocabularies: exactness, control tokens, bad text, the fallback, streams."""

from __future__ import annotations

import pickle
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from criadero import notices
from criadero.errors import TokenizerError
from criadero.tokenizer import sentencepiece_tokenizer
from criadero.tokenizer.sentencepiece_tokenizer import BATTERY, SentencePieceTokenizer
from criadero.tokenizer.tokenizer import Tokenizer, load
from tokenizer_texts import fuzzed, hostile_text, streamed


def processor(model: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=model)


@pytest.fixture(scope="session")
def judge(trained: SentencePieceTokenizer) -> Callable[[str], list[int]]:
    return processor(trained.model_bytes()).EncodeAsIds


@fuzzed
@given(text=hostile_text)
def test_kitoken_equals_sentencepiece_on_a_trained_vocabulary(
    trained: SentencePieceTokenizer, judge: Callable[[str], list[int]], text: str
) -> None:
    assert trained.encoder == "kitoken"
    assert trained.encode(text) == judge(text)


@fuzzed
@given(text=hostile_text)
def test_text_survives_except_the_blank_marker(trained: SentencePieceTokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text.replace("\u2581", " ")


@fuzzed
@given(text=hostile_text)
def test_no_text_becomes_a_control_token(trained: SentencePieceTokenizer, text: str) -> None:
    assert not {0, 1, 2} & set(trained.encode(text))


@fuzzed
@given(ids=st.lists(st.integers(0, 419), max_size=30))
def test_any_stream_of_ids_equals_whole_decoding(trained: SentencePieceTokenizer, ids: list[int]) -> None:
    assert streamed(trained, ids) == trained.decode(ids)


@fuzzed
@given(ids=st.lists(st.integers(259, 419), max_size=30))
def test_decoding_equals_sentencepiece(trained: SentencePieceTokenizer, ids: list[int]) -> None:
    """Byte pieces are left out: SentencePiece writes one U+FFFD per stray byte, Python one per broken run."""
    assert trained.decode(ids) == processor(trained.model_bytes()).DecodeIds(ids)


def test_a_stream_never_shows_half_a_character(trained: SentencePieceTokenizer) -> None:
    decoder = trained.stream()
    ids = trained.encode("🦙")
    assert len(ids) == 5  # the blank in front and four bytes
    shown = [decoder.push(i) for i in ids]
    assert shown == ["", "", "", "", "🦙"]
    assert decoder.finish() == ""


def test_an_unfinished_character_is_shown_only_at_the_end(trained: SentencePieceTokenizer) -> None:
    ids = trained.encode("ok🦙")[:-2]
    decoder = trained.stream()
    assert "".join(decoder.push(i) for i in ids) == "ok"
    assert decoder.finish() == "\ufffd"
    assert trained.decode(ids) == "ok\ufffd"


def test_control_ids_are_added_only_when_asked_for(trained: SentencePieceTokenizer) -> None:
    plain = trained.encode("</s> the <s>")
    assert trained.encode("</s> the <s>", bos=True, eos=True) == [1, *plain, 2]
    assert trained.decode([1, *plain, 2]) == "</s> the <s>"
    assert trained.encode("") == []
    assert trained.encode_batch(["", "the"], eos=True) == [[2], [*trained.encode("the"), 2]]


def test_lone_surrogates_are_encoded_as_replacement_characters(trained: SentencePieceTokenizer) -> None:
    assert trained.decode(trained.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"


@pytest.mark.parametrize("wrong", [-1, 420, 10**9])
def test_ids_outside_the_vocabulary_are_refused(trained: SentencePieceTokenizer, wrong: int) -> None:
    for attempt in (trained.piece, trained.stream().push, lambda i: trained.decode([300, i])):
        with pytest.raises(TokenizerError, match=f"{wrong} is outside the vocabulary of 420"):
            attempt(wrong)


def test_workers_get_the_same_tokenizer_through_pickle(trained: SentencePieceTokenizer) -> None:
    copy = pickle.loads(pickle.dumps(trained))
    assert (copy.sha256, copy.encode("the 42")) == (trained.sha256, trained.encode("the 42"))


def test_without_kitoken_sentencepiece_encodes_and_says_so_once(
    trained: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "kitoken", None)
    monkeypatch.setattr(notices, "_said", set())
    slow = [SentencePieceTokenizer(trained.model_bytes()) for _ in range(2)]
    assert slow[0].encoder == "sentencepiece"
    assert [slow[0].encode(text) for text in BATTERY] == [trained.encode(text) for text in BATTERY]
    assert [record.message for record in caplog.records] == [
        "kitoken is not installed; using SentencePiece, which is exact but slower"
    ]


def lying_encoder(model: bytes, *, wrong: str) -> Callable[[str], list[int]]:
    right = processor(model).EncodeAsIds
    return lambda text: [5] if text == wrong else right(text)


@pytest.mark.parametrize("wrong", [BATTERY[3], "a document"])
def test_an_encoder_that_differs_is_replaced_by_sentencepiece(
    trained: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setattr(
        sentencepiece_tokenizer, "_fast_encoder", lambda model: lying_encoder(model, wrong=wrong)
    )
    tokenizer = SentencePieceTokenizer(trained.model_bytes())
    assert tokenizer.encode(wrong) == trained.encode(wrong)
    assert tokenizer.encoder == "sentencepiece"


def test_one_document_in_ten_thousand_is_checked(
    trained: SentencePieceTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sentencepiece_tokenizer, "_fast_encoder", lambda model: lying_encoder(model, wrong="late")
    )
    tokenizer = SentencePieceTokenizer(trained.model_bytes())
    for _ in range(10_000):
        tokenizer.encode("x")
    assert tokenizer.encoder == "kitoken"
    assert tokenizer.encode("late") == trained.encode("late")
    assert tokenizer.encoder == "sentencepiece"


def test_chat_tokens_stored_as_text_become_controls(trained: SentencePieceTokenizer) -> None:
    """Some chat models keep `<|im_end|>` as a user-defined piece, which SentencePiece finds in text."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto.FromString(trained.model_bytes())
    proto.pieces.add(piece="<|im_end|>", score=0.0, type=4)
    model = proto.SerializeToString()
    assert 420 in processor(model).EncodeAsIds("a<|im_end|>")
    tokenizer = SentencePieceTokenizer(model)
    assert 420 not in tokenizer.encode("a<|im_end|>")
    assert tokenizer.special_tokens["<|im_end|>"] == 420
    assert tokenizer.decode([420]) == ""


def test_added_control_tokens_live_beyond_the_pieces(trained: SentencePieceTokenizer, tmp_path: Path) -> None:
    added = {"<|im_start|>": 420, "<|im_end|>": 421}
    SentencePieceTokenizer(trained.model_bytes(), added_tokens=added).save(tmp_path)
    tokenizer = load(tmp_path)
    assert tokenizer.vocab_size == 422
    assert tokenizer.special_tokens["<|im_end|>"] == 421
    assert tokenizer.encode("<|im_end|>") == trained.encode("<|im_end|>")
    assert tokenizer.decode([421, *trained.encode("the"), 420]) == "the"
    with pytest.raises(TokenizerError, match="expected 420"):
        SentencePieceTokenizer(trained.model_bytes(), added_tokens={"<|im_end|>": 430})


def seconds_to_encode(tokenizer: Tokenizer, text: str) -> float:
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        tokenizer.encode(text)
        best = min(best, time.process_time() - start)
    return best


@pytest.mark.parametrize(
    "pattern", ["a", " ", "\n", "日", "".join(random.Random(0).choices("abcdefgh", k=1000))]
)
def test_twice_the_text_takes_less_than_three_times_as_long(
    trained: SentencePieceTokenizer, pattern: str
) -> None:
    """One word of a megabyte included; the whole document is encoded at once, never cut."""
    trained.encode("the first document of a tokenizer may be checked, the next ones are not")
    text = pattern * (300_000 // len(pattern))
    assert seconds_to_encode(trained, text * 2) < 3 * seconds_to_encode(trained, text)
