"""`criadero chat MODEL`: a conversation in the terminal, answers streamed as they are written.

Ctrl-C stops an answer, Ctrl-D leaves. From a pipe it is the same without prompts: a turn a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.chat_commands import Commands
from criadero.cli.generate import (
    Device,
    Dtype,
    MaxTokens,
    MinP,
    Model,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    as_values,
    check_text,
    given_options,
    print_token,
)
from criadero.cli.line_history import history_path
from criadero.cli.output import print_json, print_text
from criadero.cli.turns import Turn, Turns

if TYPE_CHECKING:
    from criadero.generate.chat import Conversation
    from criadero.generate.engine import Completion
    from criadero.generate.sampling import SamplingConfig

HOW_TO_LEAVE = "(Ctrl-D leaves; /help lists the commands)"


def chat(
    model: Model,
    template: Annotated[
        str | None, typer.Option(help="Chat template; default: the one that came with the model.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Instruction before the first turn.")] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each answer.")] = False,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Neither read nor keep the lines typed in.")
    ] = False,
) -> None:
    """Talk with a model, one line a turn, also from a pipe.

    /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.
    """
    from criadero import config
    from criadero.generate.chat import Conversation, choose_template
    from criadero.generate.load import load_generator
    from criadero.generate.sampling import SamplingConfig

    given = given_options(
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        seed=seed,
        stop=stop,
    )
    sampling = config.validate(SamplingConfig, given, where="the command line")
    opened = load_generator(model, device=device, dtype=dtype)
    conversation = Conversation(
        opened.generator, choose_template(opened.loaded, wanted=template), system=system
    )
    turns = Turns(None if no_history else history_path())
    _Session(conversation, sampling, turns, as_json=json).talk()


class _Session:
    """One conversation with somebody at stdin."""

    def __init__(
        self, conversation: Conversation, sampling: SamplingConfig, turns: Turns, *, as_json: bool
    ) -> None:
        self._conversation = conversation
        self._sampling = sampling
        self._turns = turns
        self._as_json = as_json
        self._retries = 0
        self._commands = Commands(conversation, self._retry)

    def talk(self) -> None:
        """Answer turn after turn until the input ends; away from a terminal Ctrl-C ends it too."""
        if self._turns.at_terminal:
            typer.echo(f"(one line is one turn) {HOW_TO_LEAVE}", err=True)
        while not self._commands.wants_to_leave:
            said = HOW_TO_LEAVE
            try:
                turn = self._turns.read()
                if turn is None:
                    return
                said = "(stopped)"
                self._respond(turn)
            except KeyboardInterrupt:
                if not self._turns.at_terminal:
                    raise
                typer.echo(f"\n{said}", err=True)

    def _respond(self, turn: Turn) -> None:
        """Do what a turn asks for; what is wrong with it is said and ends nothing."""
        from criadero.errors import DataError, UsageError

        try:
            if turn.command is not None:
                self._commands.run(*turn.command)
            elif turn.text.strip():
                self._answer(turn.text.strip())
        except UsageError as problem:
            typer.echo(f"error: {problem}", err=True)
        except DataError as problem:
            typer.echo(f"error: {problem}", err=True)
            if any(message.role == "user" for message in self._conversation.messages):
                typer.echo("hint: /clear begins a new conversation", err=True)

    def _answer(self, text: str) -> None:
        check_text(text, "this turn")
        on_token = None if self._as_json else print_token
        self._show(self._conversation.answer(text, self._sampling, on_token=on_token))

    def _retry(self) -> None:
        self._retries += 1
        seed = self._sampling.seed
        other = {} if seed is None else {"seed": (seed + self._retries) % 2**63}  # or the answer is the same
        on_token = None if self._as_json else print_token
        completion = self._conversation.retry(self._sampling.model_copy(update=other), on_token=on_token)
        if completion is None:
            typer.echo("(there is nothing to retry)", err=True)
        else:
            self._show(completion)

    def _show(self, completion: Completion) -> None:
        """Print what is not yet on the screen."""
        if self._as_json:
            print_json(as_values(completion))
            return
        print_text("\n")
        if completion.finish_reason == "length":
            typer.echo(f"(cut off after {completion.completion_tokens} tokens)", err=True)
