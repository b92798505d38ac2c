"""Continuing a prompt: one pass over the prompt, then one token at a time through the cache.

Entry point: `Generator`, whose `stream` yields tokens as they are chosen and whose `generate` collects them.
The text of a stream, put together, is what decoding all its tokens at once would give, cut at a stop string.
Letters: B batch (1 here), T sequence, V vocabulary, D model width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.errors import DataError, FormatError, NumericsError
from criadero.generate.kv_cache import KVCache
from criadero.generate.sampling import SamplingConfig, new_generator, sample
from criadero.generate.stop import StopFinder
from criadero.model.transformer import Transformer
from criadero.notices import say_once
from criadero.tokenizer.stream import StreamDecoder
from criadero.tokenizer.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Token:
    """One chosen token."""

    id: int
    text: str
    """The text this token lets out: possibly none, possibly some that was held back before."""
    logprob: float
    """Natural log of the model's own probability, before temperature and filters."""
    finish_reason: FinishReason | None = None
    """Set on the last token: `stop` for an end token or stop string, `length` for a limit."""


@dataclass(frozen=True)
class Completion:
    """A whole continuation."""

    text: str
    ids: tuple[int, ...]
    """Every chosen token, an end token and those of a stop string included."""
    finish_reason: FinishReason
    prompt_tokens: int
    seed: int | None
    """What repeats this completion; None when greedy."""
    prefill_seconds: float
    """Until the first token was there."""
    decode_seconds: float
    """From the first token to the last."""

    @property
    def completion_tokens(self) -> int:
        """How many tokens were chosen."""
        return len(self.ids)

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding; of a single token, that of the prompt's pass."""
        if len(self.ids) > 1:
            return (len(self.ids) - 1) / max(self.decode_seconds, 1e-9)
        return len(self.ids) / max(self.prefill_seconds, 1e-9)


class Generator:
    """Continues prompts with one model.

    Args:
        model: with loaded weights, on its device, in its dtype.
        tokenizer: the one the model was trained with.

    Raises:
        FormatError: the tokenizer has ids that the model does not know.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        if tokenizer.vocab_size > model.config.vocab_size:
            raise FormatError(
                f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {model.config.vocab_size:,}",
                hint="use the tokenizer the model was trained with",
            )
        self.model = model
        self.tokenizer = tokenizer

    @property
    def context(self) -> int:
        """Most tokens of prompt and continuation together."""
        return self.model.config.max_seq_len

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text as a prompt, opened by the begin token where the model expects one."""
        empty_needs_one = not text and self.tokenizer.bos_id is not None
        return self.tokenizer.encode(text, bos=self.tokenizer.adds_bos or empty_needs_one)

    def generate(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        end_ids: Collection[int] | None = None,
        on_token: Callable[[Token], None] | None = None,
    ) -> Completion:
        """Return the continuation of `prompt_ids`; arguments and errors as for `stream`.

        Args:
            on_token: called with each token as it comes.
        """
        start_seconds = time.perf_counter()
        random = new_generator(sampling.seed)
        tokens: list[Token] = []
        first_seconds = start_seconds
        for token in self._tokens(prompt_ids, sampling, end_ids, random):
            first_seconds = first_seconds if tokens else time.perf_counter()
            tokens.append(token)
            if on_token is not None:
                on_token(token)
        reason = tokens[-1].finish_reason
        assert reason is not None
        return Completion(
            text="".join(token.text for token in tokens),
            ids=tuple(token.id for token in tokens),
            finish_reason=reason,
            prompt_tokens=len(prompt_ids),
            seed=None if sampling.temperature == 0 else random.initial_seed(),
            prefill_seconds=first_seconds - start_seconds,
            decode_seconds=time.perf_counter() - first_seconds,
        )

    def stream(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingConfig,
        *,
        end_ids: Collection[int] | None = None,
    ) -> Iterator[Token]:
        """Yield the tokens that follow `prompt_ids`; closing the iterator stops the work.

        Args:
            prompt_ids: at least one and fewer than `context`.
            sampling: how to choose, and where to stop.
            end_ids: tokens that end the continuation; None for the tokenizer's end token.

        Raises:
            DataError: the prompt is empty, too long, or holds an id the model does not know.
            NumericsError: the model gives values that are not numbers.
        """
        return self._tokens(prompt_ids, sampling, end_ids, new_generator(sampling.seed))

    def _tokens(
        self,
        prompt_ids: Sequence[int],
        sampling: SamplingConfig,
        end_ids: Collection[int] | None,
        random: torch.Generator,
    ) -> Iterator[Token]:
        self._check_prompt(prompt_ids)
        if sampling.without_effect:
            say_once(f"temperature 0 is greedy: {', '.join(sampling.without_effect)} have no effect")
        ends = {self.tokenizer.eos_id} if end_ids is None else set(end_ids)
        count = min(sampling.max_tokens, self.context - len(prompt_ids))
        text = _ContinuationText(self.tokenizer, prompt_ids, sampling.stop)
        for number, (token_id, logprob) in enumerate(self._choices(prompt_ids, sampling, random, count), 1):
            piece = "" if token_id in ends else text.push(token_id)
            if token_id in ends or text.stopped:
                yield Token(token_id, piece + text.finish(), logprob, "stop")
                return
            if number == count:
                yield Token(token_id, piece + text.cut(), logprob, "length")
                return
            yield Token(token_id, piece, logprob)

    def _check_prompt(self, prompt_ids: Sequence[int]) -> None:
        if not prompt_ids:
            raise DataError("the prompt has no tokens", hint="begin with the tokenizer's begin token")
        if len(prompt_ids) >= self.context:
            raise DataError(
                f"the prompt has {len(prompt_ids):,} tokens, the model's context holds {self.context:,} "
                "with at least one for the answer",
                hint="shorten the prompt; nothing was cut off",
            )
        if not (min(prompt_ids) >= 0 and max(prompt_ids) < self.model.config.vocab_size):
            wrong = next(i for i in prompt_ids if not 0 <= i < self.model.config.vocab_size)
            raise DataError(
                f"the prompt holds id {wrong}, the model knows 0 to {self.model.config.vocab_size - 1:,}"
            )

    def _choices(
        self, prompt_ids: Sequence[int], sampling: SamplingConfig, random: torch.Generator, count: int
    ) -> Iterator[tuple[int, float]]:
        """Yield up to `count` pairs of chosen id and its logprob."""
        weight = self.model.embedding.weight
        max_len = len(prompt_ids) + count
        cache = KVCache(self.model.config, max_len=max_len, dtype=weight.dtype, device=weight.device)
        positions_1T = torch.arange(max_len, device=weight.device).unsqueeze(0)
        tokens_1T = torch.tensor([list(prompt_ids)], device=weight.device)
        for _ in range(count):
            logits_1V = self._last_logits(tokens_1T, positions_1T, cache)
            tokens_1T, logprob_1 = _choose(logits_1V, sampling, random)
            # The only place that waits for the device, once for each token.
            token_id, logprob = torch.stack((tokens_1T[0].double(), logprob_1.double())).flatten().tolist()
            if math.isnan(logprob):
                raise NumericsError("the model's logits are not finite numbers", hint="check its weights")
            yield int(token_id), logprob

    @torch.inference_mode()
    def _last_logits(self, tokens_1T: Tensor, positions_1T: Tensor, cache: KVCache) -> Tensor:
        """Run the model on what follows the cache; return the logits of the last position, (1, V)."""
        positions_1T = positions_1T[:, cache.length : cache.length + tokens_1T.shape[1]]
        logits_1V: Tensor = self.model(tokens_1T, positions_BT=positions_1T, cache=cache, head=_last_position)
        return logits_1V[:, : self.tokenizer.vocab_size]  # ids that only pad the vocabulary have no text


def _last_position(hidden_BTD: Tensor, weight_VD: Tensor) -> Tensor:
    """Return logits (B, V) of the last token only."""
    return F.linear(hidden_BTD[:, -1], weight_VD)


@torch.inference_mode()
def _choose(logits_1V: Tensor, sampling: SamplingConfig, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the chosen token (1, 1) and its logprob (1)."""
    logits_1V = logits_1V.float()
    tokens_1T = sample(logits_1V, sampling, random).unsqueeze(-1)
    logprob_1 = logits_1V.log_softmax(dim=-1).gather(-1, tokens_1T).squeeze(-1)
    return tokens_1T, logprob_1


class _ContinuationText:
    """Text of the tokens after a prompt: whole characters, nothing of a stop string.

    The prompt goes through the decoder first, because what a token looks like may depend on what is before
    it: a SentencePiece text loses the blank of its first word only.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_ids: Sequence[int], stops: Sequence[str]) -> None:
        self._decoder: StreamDecoder = tokenizer.stream()
        for token_id in prompt_ids:
            if token_id < tokenizer.vocab_size:
                self._decoder.push(token_id)
        self._stops = StopFinder(stops)

    @property
    def stopped(self) -> bool:
        return self._stops.found

    def push(self, token_id: int) -> str:
        return self._stops.push(self._decoder.push(token_id))

    def finish(self) -> str:
        """Return the rest where the model ended the text itself."""
        return self._stops.push(self._decoder.finish()) + self._stops.finish()

    def cut(self) -> str:
        """Return the rest where a limit ended the text: a character it cut in half is left out."""
        return self._stops.finish()
