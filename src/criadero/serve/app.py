"""The routes of the server: what models there are, how it is, answers, and the chat page.

Entry point: `create_app`. Each route also answers without `/v1`, as some clients leave it out. Whatever goes
wrong is answered in the protocol's JSON, an unknown path too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from criadero.serve.bodies import read_json
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.metrics import CONTENT_TYPE, Metrics
from criadero.serve.model import ServedModel
from criadero.serve.page import add_page
from criadero.serve.protocol import Job, check_text, read_chat, read_completion
from criadero.serve.replies import Reply
from criadero.serve.streams import AnswerResponse, mistake
from criadero.serve.worker import Worker

Reader = Callable[[dict[str, Any], ServedModel, Limits], Job]


def create_app(worker: Worker, *, limits: Limits, metrics: Metrics) -> FastAPI:
    """Return the application that answers with the worker's model; the worker is started by others."""
    # Its pages of documentation would load scripts from elsewhere.
    app = FastAPI(title="criadero", openapi_url=None, redirect_slashes=False)
    _add_state(app, worker, metrics)
    _add_answers(app, worker, limits=limits, metrics=metrics)
    _add_tokens(app, worker, limits)
    add_page(app)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _failed)
    return app


def _add_state(app: FastAPI, worker: Worker, metrics: Metrics) -> None:
    """Add what says how the server is and what it serves."""

    async def numbers(_request: Request) -> Response:
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def health(_request: Request) -> Response:
        _ = worker.model  # raises what is to be said while there is none
        return JSONResponse({"status": "ok"})

    async def models(_request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_entry(worker.model)]})

    async def one_model(request: Request) -> Response:
        served, asked = worker.model, request.path_params["name"]
        if asked != served.name:
            raise ApiError(
                f"The model {asked!r} is not served here. The one that is: {served.name!r}.",
                status=404,
                param="model",
                code="model_not_found",
            )
        return JSONResponse(_entry(served))

    for prefix in ("/v1", ""):
        app.add_route(f"{prefix}/health", health, methods=["GET"])
        app.add_route(f"{prefix}/metrics", numbers, methods=["GET"])
        app.add_route(f"{prefix}/models", models, methods=["GET"])
        app.add_route(f"{prefix}/models/{{name:path}}", one_model, methods=["GET"])


def _add_answers(app: FastAPI, worker: Worker, *, limits: Limits, metrics: Metrics) -> None:
    """Add what answers prompts."""

    async def answer(request: Request, read: Reader) -> Response:
        model = worker.model
        body = await read_json(request, limits)
        # Encoding a long prompt takes a while, which the tokens of others must not wait for.
        job = await asyncio.to_thread(read, body, model, limits)
        return AnswerResponse(
            worker,
            job.requests,
            write=lambda tickets: Reply(job, model, tickets),
            stream=job.stream,
            limits=limits,
            on_end=metrics.observe,
        )

    async def chat(request: Request) -> Response:
        return await answer(request, read_chat)

    async def completion(request: Request) -> Response:
        return await answer(request, read_completion)

    for prefix in ("/v1", ""):
        app.add_route(f"{prefix}/chat/completions", chat, methods=["POST"])
        app.add_route(f"{prefix}/completions", completion, methods=["POST"])


def _add_tokens(app: FastAPI, worker: Worker, limits: Limits) -> None:
    """Add what turns text into ids and back."""

    async def tokenize(request: Request) -> Response:
        model, body = worker.model, await read_json(request, limits)
        text = body.get("content")
        if not isinstance(text, str):
            raise ApiError("`content` is no text; send the text to encode.", param="content")
        check_text(text, "content")
        return JSONResponse({"tokens": await asyncio.to_thread(model.tokenizer.encode, text)})

    async def detokenize(request: Request) -> Response:
        model, body = worker.model, await read_json(request, limits)
        ids, known = body.get("tokens"), model.tokenizer.vocab_size
        if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < known for i in ids):
            raise ApiError(f"`tokens` is no list of ids; send numbers of 0 to {known - 1:,}.", param="tokens")
        return JSONResponse({"content": await asyncio.to_thread(model.tokenizer.decode, ids)})

    for prefix in ("/v1", ""):
        app.add_route(f"{prefix}/tokenize", tokenize, methods=["POST"])
        app.add_route(f"{prefix}/detokenize", detokenize, methods=["POST"])


def _entry(model: ServedModel) -> dict[str, object]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "criadero",
        "context_length": model.context,
    }


async def _refused(_request: Request, problem: Exception) -> Response:
    assert isinstance(problem, ApiError)
    headers = {} if problem.retry_after is None else {"Retry-After": str(problem.retry_after)}
    return JSONResponse(problem.body(), status_code=problem.status, headers=headers)


async def _not_routed(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    message = f"{request.method} {request.url.path!r} is not served here."
    if problem.status_code == 405:
        message += f" Methods that are: {(problem.headers or {}).get('Allow')}."
    else:
        message += " The server's guide lists the paths that are."
    error = ApiError(message, status=problem.status_code, code="not_found")
    return JSONResponse(error.body(), status_code=error.status, headers=problem.headers)


async def _failed(_request: Request, _problem: Exception) -> Response:
    error = mistake()
    return JSONResponse(error.body(), status_code=error.status)
