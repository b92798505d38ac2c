"""From the JSON of OpenAI's protocol to requests for the engine.

Entry points: `read_chat` and `read_completion`, which refuse whatever is wrong by the name of its field. Any
model name is answered, as one model is served. Fields not known here are ignored and logged; those known and
not supported are refused, as their answer would be another one than the client expects.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from criadero.errors import CriaderoError
from criadero.generate.request import Request
from criadero.generate.sampling import SamplingConfig
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.model import ServedModel
from criadero.tokenizer import chat

logger = logging.getLogger("criadero")

# OpenAI's default for completions; a chat answer may take what the context leaves.
_COMPLETION_TOKENS = 16
# A long text is counted in parts first; a cut makes a few tokens more of it.
_PART_CHARACTERS, _CUT_TOKENS = 8192, 16
_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
_UNSUPPORTED = (
    "audio",
    "best_of",
    "function_call",
    "functions",
    "modalities",
    "response_format",
    "suffix",
    "tool_choice",
    "tools",
)


class _StreamOptions(BaseModel):
    include_usage: bool = False


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    model_config = ConfigDict(strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class _Body(BaseModel):
    """What both kinds of request have in common; fields are named as in the protocol."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=0, lt=2**62)
    n: int | None = Field(None, ge=1)
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class ChatBody(_Body):
    """The body of `/v1/chat/completions`."""

    messages: list[_Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class CompletionBody(_Body):
    """The body of `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=20)


@dataclass(frozen=True)
class Job:
    """What a request asks for, ready for the engine."""

    kind: Literal["chat", "completion"]
    requests: tuple[Request, ...]
    """Of each prompt all choices, one prompt after the other."""
    choices: int
    """Of each prompt."""
    stream: bool
    include_usage: bool
    logprobs: bool
    echoes: tuple[str, ...] | None = None
    """The text of each prompt, where it is to be part of the answer."""


AnyBody = TypeVar("AnyBody", bound=_Body)


def read_chat(body: Mapping[str, Any], model: ServedModel, limits: Limits) -> Job:
    """Return what a chat request asks for.

    Raises:
        ApiError: 400, naming the field that is wrong.
    """
    asked = _validated(ChatBody, body, limits)
    if model.template is None:
        raise ApiError(f"{model.name!r} has no chat template; use /v1/completions.", param="model")
    if len(asked.messages) > limits.messages:
        raise _wrong("messages", f"are {len(asked.messages):,}, at most {limits.messages} are taken")
    ids, end_ids = _rendered(asked, model.template, model)
    limit = asked.max_completion_tokens or asked.max_tokens or model.context
    top = (asked.top_logprobs or 0) if asked.logprobs else 0
    requests = _requests(asked, [ids], model, param="messages", limit=limit, top=top, end_ids=end_ids)
    return _job("chat", asked, requests, logprobs=bool(asked.logprobs))


def read_completion(body: Mapping[str, Any], model: ServedModel, limits: Limits) -> Job:
    """Return what a completion request asks for.

    Raises:
        ApiError: 400, naming the field that is wrong.
    """
    asked = _validated(CompletionBody, body, limits)
    if asked.echo and asked.stream and asked.logprobs is not None:
        raise _wrong("echo", "with logprobs cannot be streamed; ask for it without stream")
    prompts = _prompts(asked.prompt, model)
    if not 1 <= len(prompts) <= limits.prompts:
        raise _wrong("prompt", f"holds {len(prompts):,} prompts, 1 to {limits.prompts} are taken")
    limit = asked.max_tokens or _COMPLETION_TOKENS
    requests = _requests(
        asked,
        prompts,
        model,
        param="prompt",
        limit=limit,
        top=asked.logprobs or 0,
        scored=bool(asked.echo) and asked.logprobs is not None,
    )
    echoes = _texts(asked.prompt, model) if asked.echo else None
    return _job("completion", asked, requests, logprobs=asked.logprobs is not None, echoes=echoes)


def _validated(kind: type[AnyBody], body: Mapping[str, Any], limits: Limits) -> AnyBody:
    try:
        asked = kind.model_validate(body)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        param = str(first["loc"][0]) if where else None  # the name of a field itself can be wrong
        raise ApiError(f"{where or 'The body'}: {first['msg']}.", param=param) from None
    _refuse_unsupported(asked)
    stops = _stops(asked)
    if (asked.n or 1) > limits.choices:
        raise _wrong("n", f"is {asked.n:,}, at most {limits.choices} is taken")
    if len(stops) > limits.stops or any(not 1 <= len(stop) <= limits.stop_characters for stop in stops):
        most = f"at most {limits.stops} texts of 1 to {limits.stop_characters} characters are taken"
        raise _wrong("stop", f"is too much; {most}")
    if len(asked.logit_bias or ()) > limits.logit_biases:
        raise _wrong("logit_bias", f"has too many entries, at most {limits.logit_biases} are taken")
    return asked


def _refuse_unsupported(asked: _Body) -> None:
    unknown = asked.model_extra or {}
    for name in _UNSUPPORTED:
        harmless: tuple[object, ...] = (None, [], "", 1, "none", {"type": "text"}, ["text"])
        if unknown.get(name) not in harmless:
            raise _wrong(name, "is not supported by this server; leave it out")
    ignored = sorted(set(unknown) - set(_UNSUPPORTED))
    if ignored:
        logger.info("fields of a request that are not known: %s", repr(ignored)[:200])


def _rendered(asked: ChatBody, template: str, model: ServedModel) -> tuple[list[int], frozenset[int]]:
    _check_prompt("\n".join(message.text for message in asked.messages), model, "messages")
    try:
        turns = [chat.Message(m.role.replace("developer", "system"), m.text) for m in asked.messages]
        ids = chat.render(template, turns, model.tokenizer)
        return ids, chat.stop_ids(template, model.tokenizer)
    except CriaderoError as problem:
        raise ApiError(f"{problem.message}; reorder the messages.", param="messages") from None


def _prompts(prompt: str | list[str] | list[int] | list[list[int]], model: ServedModel) -> list[list[int]]:
    """Return the ids of each prompt; given ids are used as they are."""
    if isinstance(prompt, str):
        return [_encoded(prompt, model)]
    if prompt and isinstance(prompt[0], int):
        return [[token_id for token_id in prompt if isinstance(token_id, int)]]
    return [
        _encoded(one, model) if isinstance(one, str) else one for one in prompt if not isinstance(one, int)
    ]


def _texts(prompt: str | list[str] | list[int] | list[list[int]], model: ServedModel) -> tuple[str, ...]:
    """Return the text of each prompt."""
    if isinstance(prompt, str):
        return (prompt,)
    if prompt and isinstance(prompt[0], str):
        return tuple(text for text in prompt if isinstance(text, str))
    return tuple(model.tokenizer.decode(ids) for ids in _prompts(prompt, model))


def _encoded(text: str, model: ServedModel) -> list[int]:
    _check_prompt(text, model, "prompt")
    tokenizer = model.tokenizer
    return tokenizer.encode(text, bos=tokenizer.adds_bos or (not text and tokenizer.bos_id is not None))


def check_text(text: str, param: str) -> None:
    """Refuse what JSON can hold and UTF-8 cannot.

    Raises:
        ApiError: 400, naming the field.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _wrong(
            param, "holds half of a surrogate pair, which is no text; send whole characters"
        ) from None


def _check_prompt(text: str, model: ServedModel, param: str) -> None:
    """Refuse what is no text, and what is far too long before all of it is encoded: that takes seconds."""
    check_text(text, param)
    tokens = 0
    for start in range(0, len(text) if len(text) > _PART_CHARACTERS else 0, _PART_CHARACTERS):
        tokens += len(model.tokenizer.encode(text[start : start + _PART_CHARACTERS])) - _CUT_TOKENS
        if tokens >= model.context:
            message = f"has more than the {model.context:,} tokens that the context holds; shorten it"
            raise _wrong(param, message, code="context_length_exceeded")


def _requests(
    asked: _Body,
    prompts: Sequence[list[int]],
    model: ServedModel,
    *,
    param: str,
    limit: int,
    top: int,
    scored: bool = False,
    end_ids: frozenset[int] | None = None,
) -> tuple[Request, ...]:
    """Return a request for each choice of each prompt; an answer takes no more than the context leaves."""
    bias = _bias(asked, model)
    made: list[Request] = []
    for ids in prompts:
        _check_ids(ids, model, param)
        for choice in range(asked.n or 1):
            sampling = _sampling(asked, choice=choice, max_tokens=min(limit, model.context - len(ids)))
            request = Request(ids, sampling, end_ids, logprobs=top, prompt_logprobs=scored, logit_bias=bias)
            made.append(request)
    return tuple(made)


def _check_ids(ids: Sequence[int], model: ServedModel, param: str) -> None:
    known = model.engine.model.config.vocab_size
    if not ids or not all(0 <= token_id < known for token_id in ids):
        raise _wrong(param, f"must have tokens, and ids are 0 to {known - 1:,}")
    if len(ids) >= model.context:
        message = (
            f"has {len(ids):,} tokens; the context holds {model.context:,} "
            "with at least one for the answer; shorten it"
        )
        raise _wrong(param, message, code="context_length_exceeded")


def _sampling(asked: _Body, *, choice: int, max_tokens: int) -> SamplingConfig:
    """Return the settings of one choice; each has a seed of its own, so that they differ."""
    given = {name: value for name in _SAMPLING if (value := getattr(asked, name)) is not None}
    if asked.seed is not None and given.get("temperature") != 0:
        given["seed"] = asked.seed + choice
    stops = tuple(_stops(asked))
    for stop in stops:
        check_text(stop, "stop")
    return SamplingConfig(**{"temperature": 1.0, **given}, max_tokens=max_tokens, stop=stops)


def _bias(asked: _Body, model: ServedModel) -> dict[int, float]:
    bias: dict[int, float] = {}
    for word, value in (asked.logit_bias or {}).items():
        if not (
            word.isascii() and word.isdigit() and len(word) <= 9 and int(word) < model.tokenizer.vocab_size
        ):
            most = model.tokenizer.vocab_size - 1
            raise _wrong("logit_bias", f"has the id {word[:40]!r}; ids are 0 to {most:,}")
        if not -100 <= value <= 100:
            raise _wrong("logit_bias", f"has the value {value}; values are -100 to 100")
        bias[int(word)] = value
    return bias


def _stops(asked: _Body) -> list[str]:
    return [asked.stop] if isinstance(asked.stop, str) else asked.stop or []


def _job(
    kind: Literal["chat", "completion"],
    asked: _Body,
    requests: tuple[Request, ...],
    *,
    logprobs: bool,
    echoes: tuple[str, ...] | None = None,
) -> Job:
    options = asked.stream_options
    return Job(
        kind,
        requests,
        choices=asked.n or 1,
        stream=bool(asked.stream),
        include_usage=options is not None and options.include_usage,
        logprobs=logprobs,
        echoes=echoes,
    )


def _wrong(param: str, what: str, *, code: str | None = None) -> ApiError:
    return ApiError(f"{param} {what}.", param=param, code=code)
