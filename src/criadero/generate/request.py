"""What goes into the engine and what comes out of it.

A `Request` is submitted and a `Ticket` comes back; each step gives `Token`s with the ticket they belong to.
`Completion` is a whole continuation, as `Generator.generate` returns it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from criadero.errors import CriaderoError
from criadero.generate.sampling import SamplingConfig

FinishReason = Literal["stop", "length", "cancelled", "error"]
"""An end token or stop string; a limit; nobody wants it any more; see `Ticket.error`."""

TopLogprobs = tuple[tuple[int, float], ...]
"""The most likely ids with their natural logs of probability, most likely first."""


@dataclass(frozen=True)
class Request:
    """A prompt and how to continue it."""

    prompt_ids: Sequence[int]
    """At least one and fewer than the model's context."""
    sampling: SamplingConfig
    end_ids: Collection[int] | None = None
    """Tokens that end the continuation; None for the tokenizer's end token."""
    logprobs: int = 0
    """How many of the most likely tokens to report at each place, at most 20."""
    prompt_logprobs: bool = False
    """Whether to report log-probabilities of the prompt too; it is then computed whole, cached or not."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Id to what is added to its logit before choosing, -100 to 100."""

    def __post_init__(self) -> None:
        # Its own copy: what is queued must not change, and arrays and tensors are sequences of ids too.
        object.__setattr__(self, "prompt_ids", tuple(int(token_id) for token_id in self.prompt_ids))


@dataclass(frozen=True)
class Token:
    """One chosen token."""

    id: int
    text: str
    """The text this token lets out: possibly none, possibly some that was held back before."""
    logprob: float
    """Natural log of the model's own probability, before bias, penalties, temperature and filters."""
    top_logprobs: TopLogprobs = ()
    """As many as the request asked for."""
    finish_reason: FinishReason | None = None
    """Set on the last token: `stop`, `length` or `error`."""


@dataclass(frozen=True)
class PromptToken:
    """One token of a prompt and how likely the model found it."""

    id: int
    logprob: float | None
    """None for the first, which nothing comes before."""
    top_logprobs: TopLogprobs = ()


class Ticket:
    """One submitted request; two tickets are never equal. Read by anyone, written by the engine.

    Attributes:
        request: what was submitted.
        number: counts up with each submission.
        seed: what repeats the continuation; None when greedy.
        reused_tokens: how many tokens of the prompt were found in the cache when it was first looked at.
        prompt_logprobs: if asked for, there from the first token on.
        finish_reason: None until the request is over.
        error: what went wrong where the reason is `error`.
        cancelled: whether somebody asked to stop it.
    """

    def __init__(self, request: Request, *, number: int, seed: int | None) -> None:
        self.request = request
        self.number = number
        self.seed = seed
        self.reused_tokens = 0
        self.prompt_logprobs: tuple[PromptToken, ...] | None = None
        self.finish_reason: FinishReason | None = None
        self.error: CriaderoError | None = None
        self.cancelled = False

    @property
    def prompt_tokens(self) -> int:
        """How many tokens the prompt has."""
        return len(self.request.prompt_ids)


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
