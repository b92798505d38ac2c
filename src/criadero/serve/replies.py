"""From tokens to the JSON of OpenAI's protocol, whole or in chunks.

Entry point: `Reply`, one for each request. It only writes: what is asked for comes from protocol.py, the
tokens from the worker.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from criadero.generate.request import PromptToken, Ticket, Token, TopLogprobs
from criadero.serve.model import ServedModel
from criadero.serve.protocol import Job
from criadero.tokenizer.tokenizer import Tokenizer

_Scored = Token | PromptToken


class Reply:
    """Writes the answer to one job.

    Args:
        job: what was asked for.
        model: who answers.
        tickets: of the job's requests, in their order.
    """

    def __init__(self, job: Job, model: ServedModel, tickets: Sequence[Ticket]) -> None:
        self._job = job
        self._model = model
        self._tickets = tickets
        self._written = 0
        self._begun = [False] * len(tickets)
        self._lengths = [len(self._echo(index)) for index in range(len(tickets))]
        is_chat = job.kind == "chat"
        self._head = {
            "id": ("chatcmpl-" if is_chat else "cmpl-") + secrets.token_hex(12),
            "object": "chat.completion" if is_chat else "text_completion",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": None,
        }
        self._chunk_head = {**self._head, "object": "chat.completion.chunk"} if is_chat else self._head

    def whole(self, tokens: Sequence[Sequence[Token]]) -> dict[str, Any]:
        """Return the answer of every choice, given the tokens of each."""
        choices = [self._choice(index, row) for index, row in enumerate(tokens)]
        return {**self._head, "choices": choices, "usage": self._usage()}

    def opening(self) -> list[dict[str, Any]]:
        """Return the chunks before the first token: who speaks, or the prompts that are echoed."""
        if self._job.kind == "chat":
            delta = {"role": "assistant", "content": ""}
            return [self._chunk(index, delta=delta) for index in range(len(self._tickets))]
        if self._job.echoes is None:
            return []
        return [self._chunk(index, text=self._echo(index)) for index in range(len(self._tickets))]

    def chunk(self, index: int, token: Token) -> list[dict[str, Any]]:
        """Return the chunks of a token: none while its text is held back, one more after the last."""
        token = self._shown(index, token)
        chunks: list[dict[str, Any]] = []
        is_chat = self._job.kind == "chat"
        if token.text or self._job.logprobs:
            scores = self._logprobs(index, [token])
            said: dict[str, Any] = {"delta": {"content": token.text}} if is_chat else {"text": token.text}
            chunks.append(self._chunk(index, logprobs=scores, **said))
        if token.finish_reason is not None:
            end: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
            chunks.append(self._chunk(index, finish_reason=token.finish_reason, **end))
        return chunks

    def closing(self) -> list[dict[str, Any]]:
        """Return the chunk with the counts of tokens, if it was asked for."""
        if not self._job.include_usage:
            return []
        return [{**self._chunk_head, "choices": [], "usage": self._usage()}]

    def _choice(self, index: int, tokens: Sequence[Token]) -> dict[str, Any]:
        shown = [self._shown(index, token) for token in tokens]
        text = "".join(token.text for token in shown)
        choice: dict[str, Any] = {"index": index}
        if self._job.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
            scored: list[_Scored] = [*shown]
        else:
            choice["text"] = self._echo(index) + text
            scored = [*(self._tickets[index].prompt_logprobs or ()), *shown]
            if len(scored) > len(shown):
                self._lengths[index] = 0
        return choice | {
            "logprobs": self._logprobs(index, scored),
            "finish_reason": shown[-1].finish_reason,
        }

    def _chunk(
        self, index: int, *, logprobs: object = None, finish_reason: str | None = None, **said: object
    ) -> dict[str, Any]:
        choice = {"index": index, **said, "logprobs": logprobs, "finish_reason": finish_reason}
        return {**self._chunk_head, "choices": [choice]}

    def _shown(self, index: int, token: Token) -> Token:
        """Count a token, and take off the blanks that many templates leave before an answer."""
        self._written += 1
        if self._job.kind == "chat" and self._model.template != "plain" and not self._begun[index]:
            token = replace(token, text=token.text.lstrip())
        self._begun[index] = self._begun[index] or bool(token.text)
        return token

    def _echo(self, index: int) -> str:
        return "" if self._job.echoes is None else self._job.echoes[index // self._job.choices]

    def _logprobs(self, index: int, tokens: Sequence[_Scored]) -> dict[str, Any] | None:
        if not self._job.logprobs:
            return None
        tokenizer = self._model.tokenizer
        if self._job.kind == "chat":
            return {"content": [_chat_entry(token, tokenizer) for token in tokens], "refusal": None}
        return self._completion_logprobs(index, tokens, tokenizer)

    def _completion_logprobs(
        self, index: int, tokens: Sequence[_Scored], tokenizer: Tokenizer
    ) -> dict[str, Any]:
        texts = [_text_of(token.id, tokenizer) for token in tokens]
        offsets: list[int] = []
        for text in texts:
            offsets.append(self._lengths[index])
            self._lengths[index] += len(text)
        return {
            "tokens": texts,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                None if token.logprob is None else _by_text(token.top_logprobs, tokenizer) for token in tokens
            ],
            "text_offset": offsets,
        }

    def _usage(self) -> dict[str, Any]:
        prompts = self._tickets[:: self._job.choices]
        read = sum(ticket.prompt_tokens for ticket in prompts)
        return {
            "prompt_tokens": read,
            "completion_tokens": self._written,
            "total_tokens": read + self._written,
            "prompt_tokens_details": {"cached_tokens": sum(ticket.reused_tokens for ticket in prompts)},
        }


def _chat_entry(token: _Scored, tokenizer: Tokenizer) -> dict[str, Any]:
    assert token.logprob is not None  # only the first token of a prompt has none
    top = [_likely(token_id, logprob, tokenizer) for token_id, logprob in token.top_logprobs]
    return {**_likely(token.id, token.logprob, tokenizer), "top_logprobs": top}


def _likely(token_id: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    text = _text_of(token_id, tokenizer)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _by_text(top: TopLogprobs, tokenizer: Tokenizer) -> dict[str, float]:
    """Return log-probabilities by text; where two tokens read alike the likelier one is meant."""
    return {_text_of(token_id, tokenizer): logprob for token_id, logprob in reversed(top)}


def _text_of(token_id: int, tokenizer: Tokenizer) -> str:
    """Return what a token reads inside a text; at the beginning of one a blank would be missing."""
    return tokenizer.decode([token_id, token_id])[len(tokenizer.decode([token_id])) :]
