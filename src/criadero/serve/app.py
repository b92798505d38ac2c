"""The routes of the server: what models there are, how it is, answers, and the chat page.

Entry point: `create_app`. Each route also answers without `/v1`, as some clients leave it out. Whatever goes
wrong is answered in the protocol's JSON, an unknown path too.
"""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from criadero.serve.bodies import read_json
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.model import ServedModel
from criadero.serve.page import add_page
from criadero.serve.protocol import Job, read_chat, read_completion
from criadero.serve.replies import Reply
from criadero.serve.streams import AnswerResponse, mistake
from criadero.serve.worker import Worker


def create_app(worker: Worker, *, limits: Limits) -> FastAPI:
    """Return the application that answers with the worker's model; the worker is started by others."""
    # Its pages of documentation would load scripts from elsewhere.
    app = FastAPI(title="criadero", openapi_url=None, redirect_slashes=False)
    _add_state(app, worker)
    _add_answers(app, worker, limits)
    add_page(app)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _failed)
    return app


def _add_state(app: FastAPI, worker: Worker) -> None:
    """Add what says how the server is and what it serves."""

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
        app.add_route(f"{prefix}/models", models, methods=["GET"])
        app.add_route(f"{prefix}/models/{{name:path}}", one_model, methods=["GET"])


def _add_answers(app: FastAPI, worker: Worker, limits: Limits) -> None:
    """Add what answers prompts."""

    async def chat(request: Request) -> Response:
        return answer(read_chat(await read_json(request, limits), worker.model, limits))

    async def completion(request: Request) -> Response:
        return answer(read_completion(await read_json(request, limits), worker.model, limits))

    def answer(job: Job) -> Response:
        return AnswerResponse(
            worker,
            job.requests,
            write=lambda tickets: Reply(job, worker.model, tickets),
            stream=job.stream,
            ping_seconds=limits.ping_seconds,
        )

    for prefix in ("/v1", ""):
        app.add_route(f"{prefix}/chat/completions", chat, methods=["POST"])
        app.add_route(f"{prefix}/completions", completion, methods=["POST"])


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
