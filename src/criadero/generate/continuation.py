"""One sequence on its way through the engine: its tokens, its place in the cache, its text.

Entry point: `Continuation`, made from a ticket. The text of its tokens, put together, is what decoding all of
them at once would give, cut at a stop string.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from criadero.generate.kv_cache import BlockTable
from criadero.generate.logprobs import Choice
from criadero.generate.request import PromptToken, Request, Ticket, Token
from criadero.generate.sampling import new_generator
from criadero.generate.stop import StopFinder
from criadero.tokenizer.stream import StreamDecoder
from criadero.tokenizer.tokenizer import Tokenizer


class Continuation:
    """A prompt and what was written after it.

    Attributes:
        ticket: whom it is for.
        ids: the prompt and every chosen token.
        computed: of how many of `ids` the cache holds keys and values.
        table: where it holds them.
        scores: of the prompt's first tokens, where asked for.
        random: where its draws come from; it survives being set back, so the text does not change.
        counts: how often each id was chosen.
    """

    def __init__(self, ticket: Ticket, tokenizer: Tokenizer, *, limit: int) -> None:
        self.ticket = ticket
        self.request: Request = ticket.request
        self.ids = list(self.request.prompt_ids)
        self.computed = 0
        self.table = BlockTable()
        self.scores: list[PromptToken] = []
        self.random: torch.Generator = new_generator(ticket.seed)
        self.counts: Counter[int] = Counter()
        given = self.request.end_ids
        self._ends = {tokenizer.eos_id} if given is None else set(given)
        self._text = _ContinuationText(tokenizer, self.ids, self.request.sampling.stop)
        self._limit = limit

    @property
    def remaining(self) -> int:
        """How many of its ids the model has still to see; at least 1, the last."""
        return len(self.ids) - self.computed

    @property
    def wants_scores(self) -> bool:
        """Whether log-probabilities of the prompt are still to come."""
        return self.request.prompt_logprobs and self.ticket.prompt_logprobs is None

    def accept(self, choice: Choice) -> Token:
        """Append a chosen token; the result says whether it was the last."""
        self.ids.append(choice.id)
        self.counts[choice.id] += 1
        number = len(self.ids) - self.ticket.prompt_tokens
        ended = choice.id in self._ends
        text = "" if ended else self._text.push(choice.id)
        if ended or self._text.stopped:
            return Token(choice.id, text + self._text.finish(), choice.logprob, choice.top_logprobs, "stop")
        if number == self._limit:
            return Token(choice.id, text + self._text.cut(), choice.logprob, choice.top_logprobs, "length")
        return Token(choice.id, text, choice.logprob, choice.top_logprobs)


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
