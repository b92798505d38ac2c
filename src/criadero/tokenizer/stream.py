"""Decoding token by token without ever showing half a character.

Entry point: `StreamDecoder`, made by `Tokenizer.stream()`. One character may be spread over several byte
tokens; its bytes are held back until it is whole. What a stream returns, put together, is exactly
`Tokenizer.decode` of the same ids: whole decoding is one stream pushed to its end.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass

from criadero.errors import TokenizerError


@dataclass(frozen=True)
class TokenBytes:
    """The UTF-8 bytes each id stands for; control tokens stand for none.

    Attributes:
        anywhere: bytes of id i inside a text.
        at_start: bytes of id i where it opens the text: without the blank that encoding put there.
    """

    anywhere: Sequence[bytes]
    at_start: Sequence[bytes]

    def join(self, ids: Sequence[int]) -> bytes:
        """Return the bytes of a whole sequence.

        Raises:
            TokenizerError: an id outside the vocabulary.
        """
        if ids and not (min(ids) >= 0 and max(ids) < len(self.anywhere)):
            wrong = next(i for i in ids if not 0 <= i < len(self.anywhere))
            raise TokenizerError(f"token id {wrong} is outside the vocabulary of {len(self.anywhere)}")
        opening = next((n for n, i in enumerate(ids) if self.anywhere[i]), len(ids))
        rest = b"".join([self.anywhere[i] for i in ids[opening + 1 :]])
        return (self.at_start[ids[opening]] if opening < len(ids) else b"") + rest


class StreamDecoder:
    """Turns ids into text as they arrive."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self._token_bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def push(self, token_id: int) -> str:
        """Return the text that this id makes whole, possibly none.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        if not self._started:
            data = self._token_bytes.join([token_id])
            self._started = bool(self._token_bytes.anywhere[token_id])
            return self._decoder.decode(data)
        if not 0 <= token_id < len(self._token_bytes.anywhere):
            raise TokenizerError(
                f"token id {token_id} is outside the vocabulary of {len(self._token_bytes.anywhere)}"
            )
        return self._decoder.decode(self._token_bytes.anywhere[token_id])

    def finish(self) -> str:
        """Return what is left: U+FFFD when the ids ended inside a character, "" otherwise."""
        return self._decoder.decode(b"", final=True)
