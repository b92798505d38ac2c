"""`criadero chat MODEL`: a conversation in the terminal, answers streamed as they are written.

Ctrl-C stops an answer; a second one, or Ctrl-D, leaves.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

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
    given_options,
    print_token,
)

if TYPE_CHECKING:
    from criadero.generate.chat import Conversation
    from criadero.generate.sampling import SamplingConfig


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
) -> None:
    """Talk with a model: one line is one turn; /new begins again, Ctrl-D leaves."""
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
    _talk(conversation, sampling)


def _talk(conversation: Conversation, sampling: SamplingConfig) -> None:
    """Read lines and answer them until the input ends or Ctrl-C comes twice in a row."""
    if sys.stdin.isatty():
        typer.echo("(one line is one turn; /new begins again, Ctrl-D leaves)", err=True)
    interrupted = False
    while True:
        try:
            line = _read_line()
        except KeyboardInterrupt:
            if interrupted:
                return
            typer.echo("\n(Ctrl-C again or Ctrl-D leaves)", err=True)
            interrupted = True
            continue
        if line is None:
            return
        try:
            _turn(conversation, line.strip(), sampling)
            interrupted = False
        except KeyboardInterrupt:
            typer.echo("\n(stopped; Ctrl-C again leaves)", err=True)
            interrupted = True


def _turn(conversation: Conversation, line: str, sampling: SamplingConfig) -> None:
    """Answer one line, streaming."""
    from criadero.errors import DataError

    if line == "/new":
        conversation.clear()
    elif line:
        try:
            completion = conversation.answer(line, sampling, on_token=print_token)
        except DataError as problem:
            typer.echo(f"error: {problem.message}\nhint: /new begins a new conversation", err=True)
            return
        typer.echo()
        if completion.finish_reason == "length":
            typer.echo(f"(cut off after {completion.completion_tokens} tokens)", err=True)


def _read_line() -> str | None:
    """Return the next line without its end, None at the end of the input; a prompt only for people."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.removesuffix("\n") if line else None
    try:
        return input("> ")
    except EOFError:
        typer.echo()
        return None
