"""Perplexity equals what a loop over tokens finds, one forward pass for each."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from criadero.errors import ConfigError, DataError, NumericsError
from criadero.generate.perplexity import perplexity, read_text, windows
from criadero.model.transformer import Transformer
from generate.tiny_model import BOS, byte_tokenizer, tiny_model

TEXT = "Die Sonne schien, da sie keine andere Wahl hatte, auf nichts Neues; \u00fcber \U0001f98a."


class WithoutBegin:
    """The same tokenizer for a model that expects no begin token."""

    adds_bos, bos_id = False, BOS

    def encode(self, text: str) -> list[int]:
        return byte_tokenizer().encode(text)


@torch.no_grad()
def naive_nll(
    model: Transformer, ids: list[int], opening: list[int], *, context: int, stride: int
) -> list[float]:
    """Score each token by itself, from the text before it that its window holds."""
    width, found = context + 1 - len(opening), []
    for index in range(1 - len(opening), len(ids)):
        later_windows = max(0, math.ceil((index + 1 - width) / stride))
        end = min(width + later_windows * stride, len(ids))
        before = opening + ids[max(0, end - width) : index]
        logits = model(torch.tensor([before]))[0, -1].double()
        found.append((logits.logsumexp(0) - logits[ids[index]]).item())
    return found


@pytest.mark.parametrize("begin", [True, False])
@pytest.mark.parametrize(("context", "stride"), [(96, None), (20, 19), (20, 7), (13, 1), (2, 1)])
def test_it_equals_a_loop_over_tokens(begin: bool, context: int, stride: int | None):
    model, tokenizer = tiny_model(), byte_tokenizer() if begin else WithoutBegin()
    ids, opening = byte_tokenizer().encode(TEXT), [BOS] if begin else []
    expected = naive_nll(model, ids, opening, context=context, stride=stride or context // 2)
    score = perplexity(model, tokenizer, TEXT, context=context, stride=stride)
    assert score.tokens == len(expected) == len(ids) - (not begin)
    assert score.nll_per_token == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.nll_per_token), rel=1e-12)
    assert score.bits_per_byte == pytest.approx(sum(expected) / math.log(2) / len(TEXT.encode()), rel=1e-5)


@pytest.mark.parametrize("opening", [0, 1])
@pytest.mark.parametrize("tokens", [2, 9, 10, 11, 57])
@pytest.mark.parametrize("stride", [1, 3, 9])
def test_each_token_is_scored_once_with_the_context_promised(opening: int, tokens: int, stride: int):
    seen: list[int] = []
    for start, first, end in windows(tokens, context=10, stride=stride, opening=opening):
        assert end - start <= 11 - opening
        assert start == 0 or first - start >= 10 - stride
        seen.extend(range(first, end))
    assert seen == list(range(1 - opening, tokens))


def test_many_logits_are_made_in_parts(monkeypatch: pytest.MonkeyPatch):
    whole = perplexity(tiny_model(), byte_tokenizer(), TEXT)
    monkeypatch.setattr("criadero.generate.perplexity._LOGITS_AT_ONCE", 3 * 261)
    assert perplexity(tiny_model(), byte_tokenizer(), TEXT).nll_per_token == pytest.approx(
        whole.nll_per_token, rel=1e-6
    )


def test_progress_ends_at_the_whole():
    calls: list[tuple[int, int]] = []
    score = perplexity(
        tiny_model(), byte_tokenizer(), TEXT, context=20, on_progress=lambda *call: calls.append(call)
    )
    assert len(calls) > 3
    assert calls[-1] == (score.tokens, score.tokens)


def test_markers_in_the_text_are_text():
    assert perplexity(tiny_model(), byte_tokenizer(), "</s>").tokens == 4


@pytest.mark.parametrize(("text", "tokenizer"), [("", byte_tokenizer()), ("x", WithoutBegin())])
def test_a_text_too_short_is_refused(text: str, tokenizer: WithoutBegin):
    with pytest.raises(DataError, match="too few") as caught:
        perplexity(tiny_model(), tokenizer, text)
    assert caught.value.hint == "give a longer text"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"context": 97}, "2 to 96"), ({"context": 1}, "2 to 96"), ({"stride": 96}, "1 to 95"),
     ({"context": 10, "stride": 0}, "1 to 9")],
)  # fmt: skip
def test_windows_that_do_not_fit_are_refused(settings: dict[str, int], message: str):
    with pytest.raises(ConfigError, match=message) as caught:
        perplexity(tiny_model(), byte_tokenizer(), TEXT, **settings)
    assert caught.value.hint


def test_weights_that_are_not_finite_are_named():
    model = tiny_model()
    with torch.no_grad():
        model.norm.weight.fill_(math.nan)
    with pytest.raises(NumericsError, match="nan"):
        perplexity(model, byte_tokenizer(), TEXT)


def test_a_file_that_is_not_utf8_or_not_there_is_named(tmp_path: Path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="byte 3") as caught:
        read_text(tmp_path / "latin")
    assert "iconv" in (caught.value.hint or "")
    with pytest.raises(DataError, match="No such file"):
        read_text(tmp_path / "none")
