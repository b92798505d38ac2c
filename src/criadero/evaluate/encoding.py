"""From the texts of a question to the requests of the scorer.

Entry points: `Encoder.question`, and `Encoder.pair` underneath. A context and its continuation are encoded as
one text, and what the context alone has is split off, blanks at its end going to the continuation: tokens are
those of running text.
"""

from __future__ import annotations

from dataclasses import dataclass

from criadero.errors import TokenizerError
from criadero.evaluate.scoring import ScoreRequest
from criadero.evaluate.task import Question
from criadero.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Encoded:
    """The requests of a question.

    Attributes:
        candidates: one for each.
        unconditional: the same after the answer context; empty where no rule asks for it.
        shots: how many worked examples there was room for.
        cut_tokens: how many tokens were cut off the beginnings of candidates with their contexts.
    """

    candidates: tuple[ScoreRequest, ...]
    unconditional: tuple[ScoreRequest, ...]
    shots: int
    cut_tokens: int

    @property
    def requests(self) -> tuple[ScoreRequest, ...]:
        """All of them."""
        return self.candidates + self.unconditional


class Encoder:
    """Encodes for one model.

    Args:
        tokenizer: the model's.
        bos: whether every text opens with the begin token; None for what the model expects.
        most_tokens: the model's context.

    Raises:
        TokenizerError: there is no token to open an empty context with.
    """

    def __init__(self, tokenizer: Tokenizer, *, bos: bool | None, most_tokens: int) -> None:
        self._tokenizer = tokenizer
        self.bos = tokenizer.adds_bos if bos is None else bos
        self._most_tokens = most_tokens

    def question(self, question: Question, answer_context: str | None) -> Encoded:
        """Return the requests of a question; worked examples that do not fit are dropped, the last first."""
        for shots in range(len(question.shots), -1, -1):
            opening = question.opening + "".join(question.shots[:shots])
            pairs = [self.pair(opening + c.context, c.continuation) for c in question.candidates]
            if max(_fed(pair) for pair in pairs) <= self._most_tokens:
                break
        cut = [self.fitting(pair) for pair in pairs]
        after_answer = [
            self.fitting(self.pair(answer_context, c.continuation))
            for c in question.candidates
            if answer_context is not None
        ]
        lost = sum(_fed(pair) - _fed(kept) for pair, kept in zip(pairs, cut, strict=True))
        return Encoded(tuple(cut), tuple(after_answer), shots, lost)

    def pair(self, context: str, continuation: str) -> ScoreRequest:
        """Return the tokens of a continuation and those before it."""
        kept = context.rstrip()
        continuation = context[len(kept) :] + continuation
        before = self._tokenizer.encode(kept, bos=self.bos) if kept else [self.first_id]
        if kept:
            whole = self._tokenizer.encode(kept + continuation, bos=self.bos)
        else:
            whole = before + self._tokenizer.encode(continuation)
        return ScoreRequest(tuple(before), tuple(whole[len(before) :]))

    @property
    def first_id(self) -> int:
        """What opens a text without context: the begin token, else the end token."""
        for token_id in (self._tokenizer.bos_id, self._tokenizer.eos_id):
            if token_id is not None:
                return token_id
        raise TokenizerError(
            "a text without context is to be scored, and the vocabulary has no token to open it with",
            hint="leave such benchmarks out, or use a tokenizer with a begin or end token",
        )

    def fitting(self, pair: ScoreRequest) -> ScoreRequest:
        """Cut the beginning of what is too long, but for the begin token; the continuation's only at need."""
        over = _fed(pair) - self._most_tokens
        if over <= 0:
            return pair
        ids, opened = pair.context_ids, int(self.bos)
        if opened + over < len(ids):
            return ScoreRequest(ids[:opened] + ids[opened + over :], pair.continuation_ids)
        return ScoreRequest(ids[:1], pair.continuation_ids[-self._most_tokens :])


def _fed(pair: ScoreRequest) -> int:
    """Return how many tokens the model is fed for a pair; the last foretells nothing."""
    return len(pair.context_ids) + len(pair.continuation_ids) - 1
