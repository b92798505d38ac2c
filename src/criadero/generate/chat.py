"""A conversation with a model: the turns so far, written by a chat template, answered by the generator.

Entry points: `choose_template`, which refuses to guess, and `Conversation`. A model without a template is a
base model: it continues the running text of all turns, which is said once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from criadero.errors import FormatError
from criadero.formats.load import LoadedModel
from criadero.generate.engine import Completion, Generator, Token
from criadero.generate.sampling import SamplingConfig
from criadero.notices import say_once
from criadero.tokenizer import chat
from criadero.tokenizer.chat import Message


def choose_template(loaded: LoadedModel, *, wanted: str | None = None) -> str:
    """Return the name of the chat template to use: the one wanted, else the model's own, else `plain`.

    Raises:
        FormatError: the model's own template is none of those known here, and none was asked for.
    """
    if wanted is not None:
        return wanted
    if loaded.has_unknown_template:
        raise FormatError(
            f"{loaded.source} comes with a chat template that is not known here and is never run",
            hint=f"name the one it was trained with: --template {'|'.join(chat.TEMPLATES)}",
        )
    if loaded.chat_template is None:
        say_once("this is a base model without a chat template: it continues your text, it does not answer")
        return "plain"
    return loaded.chat_template


class Conversation:
    """The turns between a user and a model.

    Args:
        generator: the model.
        template: a name known to `criadero.tokenizer.chat`.
        system: an instruction before the first turn.

    Raises:
        TokenizerError: an unknown template, or a vocabulary without its control tokens.
    """

    def __init__(self, generator: Generator, template: str, *, system: str | None = None) -> None:
        self._generator = generator
        self._template = template
        self._end_ids = chat.stop_ids(template, generator.tokenizer)
        self._opening = () if system is None else (Message("system", system),)
        self.messages: tuple[Message, ...] = self._opening

    @property
    def system(self) -> str | None:
        """The instruction before the first turn; setting it keeps the turns."""
        return self._opening[0].content if self._opening else None

    @system.setter
    def system(self, text: str | None) -> None:
        turns = self.messages[len(self._opening) :]
        self._opening = () if text is None else (Message("system", text),)
        self.messages = (*self._opening, *turns)

    def clear(self) -> None:
        """Forget every turn; the system instruction stays."""
        self.messages = self._opening

    def undo(self) -> str | None:
        """Forget the last turn of the user and what was answered; return what the user said, if anything."""
        said = [at for at, message in enumerate(self.messages) if message.role == "user"]
        if not said:
            return None
        text = self.messages[said[-1]].content
        self.messages = self.messages[: said[-1]]
        return text

    def retry(
        self, sampling: SamplingConfig, *, on_token: Callable[[Token], None] | None = None
    ) -> Completion | None:
        """Answer the last turn of the user again, None if there is none; arguments and errors as `answer`.

        The answer of before stays where no token of a new one is written.
        """
        before = self.messages
        text = self.undo()
        if text is None:
            return None
        shortened = self.messages
        try:
            return self.answer(text, sampling, on_token=on_token)
        finally:
            if self.messages == shortened:
                self.messages = before

    def answer(
        self, text: str, sampling: SamplingConfig, *, on_token: Callable[[Token], None] | None = None
    ) -> Completion:
        """Add a turn of the user and return the model's answer to it.

        What was written before an interruption (any exception out of `on_token`, or Ctrl-C) stays in the
        conversation as the answer; a turn without any answer leaves no trace.

        Raises:
            DataError: all turns together are longer than the model's context, naming both numbers.
        """
        turns = (*self.messages, Message("user", text))
        prompt_ids = chat.render(self._template, turns, self._generator.tokenizer)
        pieces: list[str] = []

        def keep(token: Token) -> None:
            shown = token if any(pieces) or self._template == "plain" else _without_margin(token)
            pieces.append(shown.text)
            if on_token is not None:
                on_token(shown)

        try:
            completion = self._generator.generate(prompt_ids, sampling, end_ids=self._end_ids, on_token=keep)
        finally:
            if pieces:
                self.messages = (*turns, Message("assistant", "".join(pieces)))
        return replace(completion, text="".join(pieces))


def _without_margin(token: Token) -> Token:
    """Return the token without the blanks that many templates leave before an answer."""
    return replace(token, text=token.text.lstrip())
