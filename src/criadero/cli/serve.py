"""`criadero serve MODEL`: OpenAI's protocol for programs and a chat page for people, on one address."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from criadero.cli.generate import Device, Dtype, Model
from criadero.errors import UsageError

if TYPE_CHECKING:
    from criadero.serve.model import ServedModel

KEY_VARIABLE = "CRIADERO_API_KEY"
# Room for this many conversations as long as the context, where nothing else is said.
_CONTEXTS = 4


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; a public one needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8000,
    api_key_file: Annotated[
        Path | None, typer.Option(help=f"API keys, one a line. Default: {KEY_VARIABLE}.", show_default=False)
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients see. Default: MODEL's name.", show_default=False)
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template. Default: the model's own.", show_default=False)
    ] = None,
    cache_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens kept of all conversations. Default: 4 contexts.", min=1, show_default=False
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Serve a model over HTTP until Ctrl-C: /v1 for OpenAI's clients, a chat page at /."""
    from criadero.serve.limits import Limits
    from criadero.serve.server import serve as run
    from criadero.serve.worker import Worker

    def open_model() -> ServedModel:
        return _open(
            model, name=name, template=template, cache_tokens=cache_tokens, device=device, dtype=dtype
        )

    def say(address: str) -> None:
        typer.echo(f"{address} is ready: the chat page there, OpenAI's protocol at {address}/v1", err=True)

    limits = Limits()
    worker = Worker(open_model, limits=limits)
    run(worker, host=host, port=port, keys=_keys(api_key_file), limits=limits, on_ready=say)


def _open(
    path: Path,
    *,
    name: str | None,
    template: str | None,
    cache_tokens: int | None,
    device: str | None,
    dtype: str | None,
) -> ServedModel:
    import time

    from criadero.generate.chat import choose_template
    from criadero.generate.engine import Engine
    from criadero.generate.load import load_generator
    from criadero.serve.model import ServedModel

    opened = load_generator(path, device=device, dtype=dtype)
    model = opened.generator.model
    tokens = cache_tokens or _CONTEXTS * model.config.max_seq_len
    return ServedModel(
        Engine(model, opened.generator.tokenizer, cache_tokens=tokens),
        name or path.resolve().name.removesuffix(".gguf"),
        choose_template(opened.loaded, wanted=template),
        created=int(time.time()),
    )


def _keys(file: Path | None) -> list[str]:
    """Return the keys of a file, else of the environment; argv would show them to everybody here."""
    if file is None:
        text, where = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if text is None:
            return []
    else:
        text, where = file.read_text(encoding="utf-8"), f"`{file}`"
    keys = [line.strip() for line in text.splitlines() if line.strip()]
    if not keys:
        raise UsageError(f"{where} holds no API key", hint="write one key a line into it")
    return keys
