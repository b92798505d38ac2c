"""Continuing many prompts with one model: requests join and leave a batch that is decoded together.

Entry points: `Engine`, whose `step` one thread calls as long as it has work, and `Generator`, one prompt at a
time on top of it. A step decodes one token of every running sequence, then reads some tokens of the next
prompt, so that a long prompt delays the others by no more than that. Letters: B batch, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from criadero.errors import NumericsError, ResourceError, UsageError
from criadero.generate.continuation import Continuation
from criadero.generate.cpu_kernel import CPUDecoder, cpu_decoder
from criadero.generate.cuda_decode import graph_decoder
from criadero.generate.decode import Decoder, TorchDecoder, last_logits, prefill
from criadero.generate.kv_cache import BLOCK_TOKENS, PagedCache, blocks_for
from criadero.generate.limits import answer_tokens, cache_tokens_of, check_request, check_vocabulary
from criadero.generate.logprobs import Choice, choose, score_prompt
from criadero.generate.request import Completion, PromptToken, Request, Ticket, Token
from criadero.generate.sampling import SamplingConfig, new_generator
from criadero.model.quantized import is_quantized
from criadero.model.transformer import Head, Transformer
from criadero.notices import say_once
from criadero.tokenizer.tokenizer import Tokenizer

__all__ = ["Completion", "Engine", "EngineCounts", "Generator", "Request", "Ticket", "Token"]

# Tokens of cache that a Generator begins with; it makes a larger one when a request needs it.
_SMALLEST_CACHE_TOKENS = 1024
# Of the tokens of prompts that a step may read, the part it does read while others are written to.
_PART_WHILE_DECODING = 4

Event = tuple[Ticket, Token]


@dataclass
class EngineCounts:
    """What an engine has done so far, in tokens unless said otherwise."""

    prefilled: int = 0
    """Of prompts, run through the model; again after being set back."""
    reused: int = 0
    """Of prompts, found in the cache instead."""
    decoded: int = 0
    """Run through the model one of a sequence at a time."""
    preempted: int = 0
    """How often a sequence was set back, because the cache was full."""


class Engine:
    """Continues submitted prompts, as many together as the cache holds.

    One thread calls `step` and owns the model. `submit` and `cancel` may be called from any thread.

    Args:
        model: with loaded weights, on its device, in its dtype.
        tokenizer: the one the model was trained with.
        cache_bytes, cache_tokens: exactly one of them: memory for keys and values, or tokens it is to hold.
        max_batch: most sequences decoded together.
        prefill_tokens: most tokens of prompts in one step; a quarter while the tokens of others wait for it.

    Raises:
        FormatError: the tokenizer has ids that the model does not know.
        UsageError: a number is below 1, or not exactly one size of the cache is given.
        ResourceError: `cache_bytes` holds nothing, or there is no memory for the cache.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        *,
        cache_bytes: int | None = None,
        cache_tokens: int | None = None,
        max_batch: int = 32,
        prefill_tokens: int = 256,
    ) -> None:
        check_vocabulary(model, tokenizer)
        if min(max_batch, prefill_tokens) < 1:
            raise UsageError(
                f"max_batch is {max_batch}, prefill_tokens {prefill_tokens}; both are 1 or more",
                hint="leave them out for the usual values",
            )
        self.model = model
        self.tokenizer = tokenizer
        self.counts = EngineCounts()
        self._cache = _new_cache(model, cache_bytes=cache_bytes, cache_tokens=cache_tokens)
        self._decoder = _new_decoder(model, self._cache)
        # What a kernel rounds to 8 bits it rounds alike wherever a prompt is cut, and it is quicker here.
        self._reads_by_step = is_quantized(model) and isinstance(self._decoder, CPUDecoder)
        self.max_batch = max_batch
        self._prefill_tokens = prefill_tokens
        self._numbers = itertools.count()
        self._submitted: deque[Ticket] = deque()  # filled by any thread
        self._waiting: deque[Continuation] = deque()  # oldest first, as the next ones
        self._reading: Continuation | None = None
        self._decoding: list[Continuation] = []

    @property
    def capacity_tokens(self) -> int:
        """Most tokens that the cache holds for all sequences together."""
        return self._cache.capacity_tokens

    @property
    def free_tokens(self) -> int:
        """Tokens of cache that no sequence holds now."""
        return self._cache.free_blocks * BLOCK_TOKENS

    @property
    def num_running(self) -> int:
        """Sequences that hold part of the cache."""
        return len(self._decoding) + (self._reading is not None)

    @property
    def num_waiting(self) -> int:
        """Requests that wait for room."""
        return len(self._submitted) + len(self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether there is anything for `step` to do."""
        return self.num_running + self.num_waiting > 0

    def submit(self, request: Request) -> Ticket:
        """Queue a request; its tokens come out of later steps.

        Raises:
            DataError: the prompt is empty, longer than the context, or an id is not known to the model.
            ResourceError: prompt and answer together could never fit the cache.
        """
        check_request(request, self.model, self.tokenizer)
        tokens = cache_tokens_of(request, self.model)
        if tokens > self.capacity_tokens:
            raise ResourceError(
                f"prompt and answer may need {tokens:,} tokens of cache, the cache holds "
                f"{self.capacity_tokens:,}",
                hint="shorten the prompt, ask for fewer tokens, or give the cache more memory",
            )
        sampling = request.sampling
        if sampling.without_effect:
            say_once(f"temperature 0 is greedy: {', '.join(sampling.without_effect)} have no effect")
        seed = None if sampling.temperature == 0 else new_generator(sampling.seed).initial_seed()
        ticket = Ticket(request, number=next(self._numbers), seed=seed)
        self._submitted.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Let go of a request: its blocks come back before the model runs again."""
        ticket.cancelled = True

    def step(self) -> list[Event]:
        """Decode one token of every running sequence and read on in the next prompt; return the new tokens.

        A sequence whose logits are not numbers ends with a token of reason `error`; the others go on.
        """
        self.release_cancelled()
        return [*self._decode(), *self._read_prompts()]

    def release_cancelled(self) -> None:
        """Give back what cancelled requests hold; each step, and each part of a prompt, begins so."""
        while self._submitted:
            ticket = self._submitted.popleft()
            limit = answer_tokens(ticket.request, self.model)
            self._waiting.append(Continuation(ticket, self.tokenizer, limit=limit))
        reading = [] if self._reading is None else [self._reading]
        for sequence in (*self._waiting, *reading, *self._decoding):
            if sequence.ticket.cancelled:
                sequence.ticket.finish_reason = "cancelled"
                self._remove(sequence)
                self._cache.free(sequence.table)

    def reset(self) -> None:
        """Drop every request and all that is cached, after `step` raised; the tickets are never finished."""
        self._submitted.clear()
        self._waiting.clear()
        self._decoding.clear()
        self._reading = None
        self._cache.clear()

    def _remove(self, sequence: Continuation) -> None:
        """Take a sequence out of whatever it is in."""
        if sequence is self._reading:
            self._reading = None
        elif sequence in self._decoding:
            self._decoding.remove(sequence)
        else:
            self._waiting.remove(sequence)

    def _decode(self) -> list[Event]:
        """Run the last token of every sequence that is ready."""
        batch = self._with_room()
        if not batch:
            return []
        width = max(len(sequence.table.blocks) for sequence in batch)
        tables = [sequence.table.blocks + [0] * (width - len(sequence.table.blocks)) for sequence in batch]
        logits_BV = self._decoder.step(
            torch.tensor([sequence.ids[-1] for sequence in batch]),
            torch.tensor([sequence.computed for sequence in batch]),
            torch.tensor(tables, dtype=torch.int32),
        )
        self.counts.decoded += len(batch)
        for sequence in batch:
            sequence.computed += 1
            if sequence.computed % BLOCK_TOKENS == 0:
                self._cache.know(sequence.table, sequence.ids[: sequence.computed])
        return self._choose(batch, logits_BV)

    def _with_room(self) -> list[Continuation]:
        """Return the sequences that can be decoded; the youngest give way when blocks run out."""
        for sequence in list(self._decoding):
            while sequence in self._decoding:
                if self._cache.reserve(sequence.table, sequence.computed, len(sequence.ids)):
                    break
                self._preempt()
        return list(self._decoding)

    def _preempt(self) -> None:
        """Set the youngest running sequence back to the queue; what it wrote becomes part of its prompt."""
        reading = [] if self._reading is None else [self._reading]
        youngest = max((*self._decoding, *reading), key=lambda sequence: sequence.ticket.number)
        self._remove(youngest)
        self._cache.free(youngest.table)
        youngest.computed = 0
        if youngest.wants_scores:
            youngest.scores.clear()
        self._waiting.appendleft(youngest)
        self.counts.preempted += 1

    def _read_prompts(self) -> list[Event]:
        """Run tokens of prompts, one prompt after the other, up to the budget of a step."""
        events: list[Event] = []
        budget = self._prefill_tokens
        if self._decoding:  # who reads along is not to wait long for the next token
            budget = max(1, budget // _PART_WHILE_DECODING)
        while budget > 0:
            self.release_cancelled()
            self._reading = sequence = self._reading or self._admit()
            if sequence is None:
                break
            if sequence.remaining == 1 and not sequence.wants_scores:
                self._start_decoding(sequence)
                continue
            part = sequence.ids[sequence.computed : sequence.computed + budget]
            budget -= len(part)
            events += self._read(sequence, part)
        return events

    def _admit(self) -> Continuation | None:
        """Find room for the oldest waiting sequence, all of its tokens so far; None to let it wait."""
        if not self._waiting or len(self._decoding) >= self.max_batch:
            return None
        sequence = self._waiting[0]
        covered = 0
        if not sequence.wants_scores:
            sequence.table, covered = self._cache.find(sequence.ids)
        sequence.computed = min(covered, len(sequence.ids) - 1)
        # One for each running sequence, and one to copy a shared block to, so that it is not soon set back.
        missing = blocks_for(len(sequence.ids)) - len(sequence.table.blocks) + 1 + len(self._decoding)
        if (self._decoding and missing > self._cache.free_blocks) or not self._cache.reserve(
            sequence.table, sequence.computed, len(sequence.ids)
        ):
            self._cache.free(sequence.table)
            return None
        self._waiting.popleft()
        self.counts.reused += sequence.computed
        if len(sequence.ids) == sequence.ticket.prompt_tokens:
            sequence.ticket.reused_tokens = sequence.computed
        return sequence

    def _read(self, sequence: Continuation, part: Sequence[int]) -> list[Event]:
        """Run some tokens of a prompt; after its last, choose what comes next."""
        start = sequence.computed
        last = start + len(part) == len(sequence.ids)
        scored = sequence.wants_scores
        logits = self._run_part(sequence, part, F.linear if scored else last_logits if last else _nothing)
        sequence.computed += len(part)
        self.counts.prefilled += len(part)
        self._cache.know(sequence.table, sequence.ids[: sequence.computed], partial=last)
        if logits is None:
            return []
        if scored:
            self._score(sequence, logits[0], start)
            logits = logits[:, -1]
        if not last:
            return []
        self._start_decoding(sequence)
        return self._choose([sequence], logits.float())

    def _run_part(self, sequence: Continuation, part: Sequence[int], head: Head) -> Tensor | None:
        """Run the model on tokens of a prompt; return what `head` makes of them, or all logits (1, T, V)."""
        start = sequence.computed
        if not self._reads_by_step:
            logits: Tensor | None = prefill(
                self.model, self._cache, table=sequence.table, ids=part, start=start, head=head
            )
            return logits
        scored = {last_logits: 1, _nothing: 0}.get(head)
        logits_TV = self._decoder.step(
            torch.tensor(part),
            torch.arange(start, start + len(part)),
            torch.tensor(sequence.table.blocks, dtype=torch.int32).expand(len(part), -1),
            scored=scored,
        )
        if scored == 0:
            return None
        return logits_TV if scored else logits_TV.unsqueeze(0)

    def _start_decoding(self, sequence: Continuation) -> None:
        self._reading = None
        self._decoding.append(sequence)

    def _score(self, sequence: Continuation, logits_TV: Tensor, start: int) -> None:
        """Keep the log-probabilities of the prompt's tokens that these logits are about."""
        ids = sequence.request.prompt_ids
        if start == 0:
            sequence.scores.append(PromptToken(ids[0], None))
        targets = list(ids[start + 1 : start + 1 + len(logits_TV)])
        if targets:
            count, known = sequence.request.logprobs, self.tokenizer.vocab_size
            scored = score_prompt(logits_TV[: len(targets)], targets, count, known=known)
            sequence.scores += [
                PromptToken(i, logprob, top) for i, (logprob, top) in zip(targets, scored, strict=True)
            ]
        if len(sequence.scores) == len(ids):
            sequence.ticket.prompt_logprobs = tuple(sequence.scores)

    def _choose(self, batch: Sequence[Continuation], logits_BV: Tensor) -> list[Event]:
        """Choose the next token of each sequence; those that are over leave."""
        choices = choose(logits_BV, batch, known=self.tokenizer.vocab_size)
        return [(s.ticket, self._take(s, choice)) for s, choice in zip(batch, choices, strict=True)]

    def _take(self, sequence: Continuation, choice: Choice) -> Token:
        ticket = sequence.ticket
        if math.isnan(choice.logprob):
            ticket.error = NumericsError(
                "the model's logits are not finite numbers", hint="check its weights"
            )
            token = Token(choice.id, "", choice.logprob, finish_reason="error")
            self._cache.wipe(sequence.table)
        else:
            token = sequence.accept(choice)
            if token.finish_reason is not None:
                self._cache.free(sequence.table)
        if token.finish_reason is not None:
            ticket.finish_reason = token.finish_reason
            self._decoding.remove(sequence)
        return token


def _new_cache(model: Transformer, *, cache_bytes: int | None, cache_tokens: int | None) -> PagedCache:
    if (cache_bytes is None) == (cache_tokens is None) or min(cache_bytes or 1, cache_tokens or 1) < 1:
        raise UsageError(
            f"cache_bytes is {cache_bytes}, cache_tokens {cache_tokens}; one of them, 1 or more, is expected",
            hint="say how much memory the cache may take, or how many tokens it is to hold",
        )
    weight = model.norm.weight  # matrices may be quantised
    dtype, device = weight.dtype, weight.device
    if cache_bytes is not None:
        return PagedCache.within(model.config, cache_bytes=cache_bytes, dtype=dtype, device=device)
    num_blocks = blocks_for(cache_tokens or 1) + 1
    return PagedCache(model.config, num_blocks=num_blocks, dtype=dtype, device=device)


def _new_decoder(model: Transformer, cache: PagedCache) -> Decoder:
    return cpu_decoder(model, cache) or graph_decoder(model, cache) or TorchDecoder(model, cache)


def _nothing(_hidden_BTD: Tensor, _weight_VD: Tensor) -> None:
    """Make no logits: the prompt goes on."""


class Generator:
    """Continues one prompt at a time; what prompts have in common is computed once.

    Args:
        model: with loaded weights, on its device, in its dtype.
        tokenizer: the one the model was trained with.

    Raises:
        FormatError: the tokenizer has ids that the model does not know.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer) -> None:
        check_vocabulary(model, tokenizer)
        self.model = model
        self.tokenizer = tokenizer
        self._engine: Engine | None = None
        self._tokens_of: dict[Ticket, deque[Token]] = {}  # of every open stream

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
        start_seconds = first_seconds = time.perf_counter()
        engine, ticket = self._submit(Request(prompt_ids, sampling, end_ids))
        tokens: list[Token] = []
        for token in self._follow(engine, ticket):
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
            seed=ticket.seed,
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
        yield from self._follow(*self._submit(Request(prompt_ids, sampling, end_ids)))

    def _submit(self, request: Request) -> tuple[Engine, Ticket]:
        """Queue a request in the engine, or in a new one if its cache is too small."""
        check_request(request, self.model, self.tokenizer)
        needed = cache_tokens_of(request, self.model)
        if self._engine is None or self._engine.capacity_tokens < needed:
            doubled = 1 << (needed - 1).bit_length()
            tokens = max(needed, min(max(doubled, _SMALLEST_CACHE_TOKENS), self.context))
            self._engine = Engine(self.model, self.tokenizer, cache_tokens=tokens)
        ticket = self._engine.submit(request)
        self._tokens_of[ticket] = deque()
        return self._engine, ticket

    def _follow(self, engine: Engine, ticket: Ticket) -> Iterator[Token]:
        """Yield the tokens of a ticket, stepping the engine when there are none."""
        tokens = self._tokens_of[ticket]
        try:
            while tokens or ticket.finish_reason is None:
                while not tokens:
                    self._step(engine)
                token = tokens.popleft()
                if ticket.error is not None and not tokens:
                    raise ticket.error
                yield token
        finally:
            del self._tokens_of[ticket]
            if ticket.finish_reason is None:
                engine.cancel(ticket)
                engine.release_cancelled()

    def _step(self, engine: Engine) -> None:
        try:
            events = engine.step()
        except BaseException:  # Ctrl-C may have come anywhere, so what the engine holds is in doubt
            self._engine = None if self._engine is engine else self._engine
            raise
        for ticket, token in events:
            if ticket in self._tokens_of:
                self._tokens_of[ticket].append(token)
