"""How well a model foretells a text: perplexity over a whole file, and bits per byte.

Entry point: `perplexity`. Windows as long as the context slide over the tokens; each token is scored once, in
the first window that holds it, so all but those of the first window have at least `context - stride` tokens
before them. Every window opens with the begin token where the model expects one, which is not scored itself;
without one, neither is the first token of the text, which nothing foretells.
Letters: T sequence, D model width, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.errors import ConfigError, DataError, NumericsError
from criadero.model.transformer import Transformer
from criadero.tokenizer.tokenizer import Tokenizer

_LOGITS_AT_ONCE = 1 << 24  # 64 MiB of float32
_LARGEST_EXPONENT = 700.0  # of a float64


@dataclass(frozen=True)
class Perplexity:
    """The score of a text.

    Args:
        tokens: how many were scored.
        nll_per_token: mean negative log-likelihood, nats.
        perplexity: its exponential.
        bits_per_byte: of all UTF-8 bytes of the text; compares models of different vocabularies.
    """

    tokens: int
    nll_per_token: float
    perplexity: float
    bits_per_byte: float


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        DataError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except OSError as problem:
        raise DataError(
            f"`{path}` cannot be read: {problem.strerror}", hint="name a text file that is there"
        ) from problem
    except UnicodeDecodeError as problem:
        raise DataError(
            f"`{path}` is not UTF-8: byte {problem.start:,} cannot be read",
            hint="convert it, such as with `iconv`",
        ) from None


def perplexity(
    model: Transformer,
    tokenizer: Tokenizer,
    text: str,
    *,
    context: int | None = None,
    stride: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Perplexity:
    """Score every token of a text.

    Args:
        model: with loaded weights, on its device.
        tokenizer: the model's.
        text: whole; markers in it are taken as text.
        context: tokens a window feeds to the model, the begin token included; None for the model's own.
        stride: tokens that a window scores; None for half a window.
        on_progress: called with the tokens scored so far and those of the whole text.

    Raises:
        ConfigError: `context` or `stride` are too small or too large.
        DataError: the text has no token that can be scored.
        NumericsError: the likelihoods are not finite.
    """
    ids = tokenizer.encode(text)
    opening = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    context = _checked(context, "context", most=model.config.max_seq_len, least=2, default=None)
    stride = _checked(stride, "stride", most=context - 1, least=1, default=max(1, context // 2))
    scored = len(ids) - (not opening)
    if scored < 1:
        raise DataError(f"the text has {len(ids)} tokens, too few to score one", hint="give a longer text")
    nll_sum, done = 0.0, 0
    for start, first, end in windows(len(ids), context=context, stride=stride, opening=len(opening)):
        window = torch.tensor(opening + ids[start:end], device=model.embedding.weight.device)
        nll_sum += _window_nll(model, window, scored=end - first)
        done += end - first
        if on_progress is not None:
            on_progress(done, scored)
    return _score(nll_sum, tokens=scored, text_bytes=len(text.encode()))


def windows(tokens: int, *, context: int, stride: int, opening: int) -> Iterator[tuple[int, int, int]]:
    """Yield (start, first scored, end) of each window over a text of so many tokens.

    A window feeds all its tokens but the last to the model, behind `opening` (0 or 1) begin tokens.
    """
    width = context + 1 - opening
    first, end = 1 - opening, min(width, tokens)
    while first < end:
        yield max(0, end - width), first, end
        first, end = end, min(end + stride, tokens)


def _checked(value: int | None, name: str, *, most: int, least: int, default: int | None) -> int:
    value = value if value is not None else default if default is not None else most
    if least <= value <= most:
        return value
    raise ConfigError(
        f"`{name}` is {value:,} tokens, {least:,} to {most:,} expected",
        hint=f"leave `{name}` away for a fitting one",
    )


def _window_nll(model: Transformer, window_T: Tensor, *, scored: int) -> float:
    """Return the summed negative log-likelihood, nats, of the last `scored` tokens of int64 (T,)."""
    targets = window_T[-scored:]

    def head(hidden_BTD: Tensor, weight_VD: Tensor) -> float:
        hidden_TD = hidden_BTD[0, -scored:]
        rows = max(1, _LOGITS_AT_ONCE // weight_VD.shape[0])
        total = 0.0
        for part_TD, part_T in zip(hidden_TD.split(rows), targets.split(rows), strict=True):
            logits_TV = F.linear(part_TD, weight_VD).float()
            total += F.cross_entropy(logits_TV, part_T, reduction="none").double().sum().item()
        return total

    with torch.inference_mode():
        return float(model(window_T[:-1].unsqueeze(0), head=head))


def _score(nll_sum: float, *, tokens: int, text_bytes: int) -> Perplexity:
    nll = nll_sum / tokens
    if not nll < _LARGEST_EXPONENT:
        raise NumericsError(
            f"the text's mean negative log-likelihood is {nll}",
            hint="the weights may be damaged; try `--dtype float32`",
        )
    return Perplexity(tokens, nll, math.exp(nll), nll_sum / math.log(2) / text_bytes)
