"""`criadero generate MODEL PROMPT`: prints the continuation of a prompt, and nothing else, on stdout."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from criadero.cli.output import Json, print_json, print_text
from criadero.errors import DataError, UsageError

if TYPE_CHECKING:
    from criadero.generate.engine import Completion, Token


class Precision(StrEnum):
    """What the weights are held and multiplied in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


# The options of every verb that samples; unset ones take the defaults of SamplingConfig.
MaxTokens = Annotated[
    int | None, typer.Option(help="Most tokens to write. Default: 256.", show_default=False)
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy. Default: 0.8.", show_default=False)]
TopP = Annotated[float | None, typer.Option(help="Keep the likeliest tokens up to this sum.")]
TopK = Annotated[int | None, typer.Option(help="Keep this many of the likeliest tokens.")]
MinP = Annotated[float | None, typer.Option(help="Drop tokens below this part of the likeliest.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends the answer; may be repeated.")]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:0. Default: a GPU if there is one.")]
Dtype = Annotated[
    Precision | None, typer.Option(help="Default: bfloat16 on a GPU, else float32.", show_default=False)
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, run, checkpoint or .gguf file.")]


def generate(
    model: Model,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT",
            help="Text to continue. - reads stdin, less one final line end; so does no PROMPT in a pipe.",
            show_default=False,
        ),
    ] = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    device: Device = None,
    dtype: Dtype = None,
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Add statistics on stderr.")] = False,
) -> None:
    """Continue a text; only the continuation goes to stdout, as it is written, and a line end."""
    from criadero import config
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
    text = _prompt_text(prompt, sys.stdin)
    opened = load_generator(model, device=device, dtype=dtype)
    ids = opened.generator.encode(text)
    completion = opened.generator.generate(ids, sampling, on_token=None if json else print_token)
    if json:
        print_json(as_values(completion))
    else:
        print_text("\n")
    if verbose:
        typer.echo(
            _statistics(completion, f"{opened.loaded.source}, {opened.device}, {opened.dtype}"), err=True
        )


def given_options(**options: Any) -> dict[str, Any]:
    """Return the options that were given on the command line."""
    return {name: value for name, value in options.items() if value not in (None, [])}


def _prompt_text(prompt: str | None, stdin: TextIO | None) -> str:
    """Return the prompt, from stdin where that is meant."""
    if prompt is not None and prompt != "-":
        check_text(prompt, "PROMPT")
        return prompt
    if stdin is None or (prompt is None and stdin.isatty()):
        raise UsageError("there is no PROMPT", hint="put it behind the MODEL in quotes, or pipe it in")
    text = stdin.buffer.read().decode(errors="surrogateescape")
    check_text(text, "stdin")
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\r\n") else text.removesuffix("\n")


def check_text(text: str, name: str) -> None:
    """Refuse what was no UTF-8 when it was read, which Python keeps as lone surrogates.

    Raises:
        DataError: naming where.
    """
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise DataError(
            f"{name} is not UTF-8: character {problem.start:,} cannot be read",
            hint="convert it, such as with `iconv`",
        ) from None


def print_token(token: Token) -> None:
    """Show a token's text at once."""
    if token.text:
        print_text(token.text)


def as_values(completion: Completion) -> dict[str, Any]:
    """Return what `--json` says of a completion."""
    return {
        "text": completion.text,
        "ids": list(completion.ids),
        "finish_reason": completion.finish_reason,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "tokens_per_second": round(completion.tokens_per_second, 2),
        "prefill_seconds": round(completion.prefill_seconds, 4),
        "seed": completion.seed,
    }


def _statistics(completion: Completion, model: str) -> str:
    return (
        f"{model}\n"
        f"prompt {completion.prompt_tokens} tokens in {completion.prefill_seconds:.2f} s, "
        f"{completion.completion_tokens} tokens at {completion.tokens_per_second:.1f} tokens/s, "
        f"ended by {completion.finish_reason}"
        + ("" if completion.seed is None else f", seed {completion.seed}")
    )
