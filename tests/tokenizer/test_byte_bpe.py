"""Byte-level BPE from a tokenizer.json: round trips, controls, streams, files transformers reads."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.errors import TokenizerError
from criadero.tokenizer.byte_bpe import ByteBPETokenizer
from criadero.tokenizer.byte_bpe_table import byte_bpe_from_vocabulary
from criadero.tokenizer.tokenizer import load
from tokenizer_texts import fuzzed, hostile_text, streamed, text_of_all_kinds

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def byte_bpe(byte_bpe_table: dict[str, Any]) -> ByteBPETokenizer:
    return ByteBPETokenizer(json.dumps(byte_bpe_table).encode(), bos="<|im_start|>", eos="<|im_end|>")


@fuzzed
@given(text=hostile_text)
def test_every_text_survives_and_no_text_becomes_a_control(byte_bpe: ByteBPETokenizer, text: str) -> None:
    ids = byte_bpe.encode(text)
    assert byte_bpe.decode(ids) == text
    assert not set(ids) & {0, 1, 2}


@fuzzed
@given(ids=st.lists(st.integers(0, 399), max_size=30))
def test_any_stream_of_ids_equals_whole_decoding(byte_bpe: ByteBPETokenizer, ids: list[int]) -> None:
    assert streamed(byte_bpe, ids) == byte_bpe.decode(ids)


def test_controls_come_from_the_file_and_the_configuration(byte_bpe: ByteBPETokenizer) -> None:
    assert byte_bpe.special_tokens == dict(zip(CONTROLS, range(3), strict=True))
    assert (byte_bpe.bos_id, byte_bpe.eos_id, byte_bpe.adds_bos) == (1, 2, False)
    assert byte_bpe.encode("", bos=True, eos=True) == [1, 2]
    assert byte_bpe.decode([1, *byte_bpe.encode("the"), 2]) == "the"


def test_chat_tokens_marked_as_text_are_controls_all_the_same(byte_bpe_table: dict[str, Any]) -> None:
    unmarked = json.loads(json.dumps(byte_bpe_table))
    for entry in unmarked["added_tokens"]:
        entry["special"] = False
    tokenizer = ByteBPETokenizer(json.dumps(unmarked).encode())
    assert not set(tokenizer.encode("<|im_end|>")) & {0, 1, 2}


def test_a_folder_comes_back_as_it_was_saved(byte_bpe: ByteBPETokenizer, tmp_path: Path) -> None:
    byte_bpe.save(tmp_path)
    again = load(tmp_path)
    assert (again.sha256, again.bos_id, again.eos_id) == (byte_bpe.sha256, 1, 2)
    assert pickle.loads(pickle.dumps(again)).encode("the 42") == byte_bpe.encode("the 42")


def test_transformers_reads_the_saved_folder(byte_bpe: ByteBPETokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    byte_bpe.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    text = text_of_all_kinds(99, 200)
    assert theirs.encode(text, add_special_tokens=False) == byte_bpe.encode(text)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)


def test_an_opening_token_written_into_the_table_is_seen() -> None:
    tokens = ["<|begin_of_text|>", "a", "b", "ab"]
    content = byte_bpe_from_vocabulary(
        tokens, ["a b"], token_types=[3, 1, 1, 1], pre="llama-bpe", opening_id=0
    )
    tokenizer = ByteBPETokenizer(content)
    assert tokenizer.adds_bos
    assert (tokenizer.encode("ab"), tokenizer.encode("ab", bos=True)) == ([3], [0, 3])


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("model"), "without|not a tokenizer table"),
        (lambda t: t["model"].update(type="WordPiece"), "not byte-level BPE"),
        (lambda t: t.update(decoder=None), "not byte-level BPE"),
        (lambda t: t["model"]["vocab"].update(x=10**12), "cannot be"),
        (lambda t: t["model"]["vocab"].update(x=-1), "cannot be"),
        (lambda t: t["model"]["vocab"].update(x=500), "some are missing"),
        (lambda t: t["model"]["vocab"].update(x=7), "gives the id 7 to"),
        (lambda t: t["model"].update(merges=[["no", "such"]]), "refused by the tokenizers library"),
        (lambda t: t.update(added_tokens=[None]), "malformed added tokens"),
        (lambda t: t.update(added_tokens=7), "malformed added tokens"),
        (lambda t: t["added_tokens"][0].pop("id"), "cannot be"),
    ],
)
def test_malformed_tables_are_refused(byte_bpe_table: dict[str, Any], change: Change, message: str) -> None:
    broken = json.loads(json.dumps(byte_bpe_table))
    change(broken)
    with pytest.raises(TokenizerError, match=message):
        ByteBPETokenizer(json.dumps(broken).encode())


def test_a_vocabulary_with_faults_is_refused() -> None:
    with pytest.raises(TokenizerError, match="pre-tokenizer 'mystery' is not known"):
        byte_bpe_from_vocabulary(["a"], [], token_types=[1], pre="mystery")
    with pytest.raises(TokenizerError, match="2 tokens and 1 types"):
        byte_bpe_from_vocabulary(["a", "b"], [], token_types=[1], pre="gpt-2")
    with pytest.raises(TokenizerError, match="merge 'ab'"):
        byte_bpe_from_vocabulary(["a"], ["ab"], token_types=[1], pre="gpt-2")
    with pytest.raises(TokenizerError, match="no token '<bos>'"):
        ByteBPETokenizer(byte_bpe_from_vocabulary(["a"], [], token_types=[1], pre="gpt-2"), bos="<bos>")
