"""Who may ask: API keys, and browsers only from the server's own pages.

Entry point: `Guard`, ASGI middleware around the application. The chat page's files and `/health` need no key.
A server that only this machine reaches answers to this machine's names alone, since a foreign page could
otherwise reach it under a name of its own.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from criadero.serve.errors import ApiError
from criadero.serve.page import PATHS

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_OPEN_PATHS = PATHS | {"/health", "/v1/health"}


class Guard:
    """Refuses who may not ask, and lets the others through.

    Args:
        app: the application.
        keys: any of them opens the server; none: no key is asked for.
        hosts: names that requests may be addressed to; None for any.
    """

    def __init__(self, app: ASGIApp, *, keys: Collection[str], hosts: Collection[str] | None) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        problem = self._refusal(scope) if scope["type"] == "http" else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await JSONResponse(problem.body(), status_code=problem.status)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ApiError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return _forbidden("This server answers to its own machine only; ask it by localhost.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return _forbidden("Pages of other sites may not ask this server; use its own page.")
        if scope["path"] in _OPEN_PATHS or not self._keys or self._knows(headers):
            return None
        return ApiError(
            "The API key is missing or wrong; send it as `Authorization: Bearer KEY`.",
            status=401,
            kind="authentication_error",
            code="invalid_api_key",
        )

    def _knows(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        # All are compared, so that the time says nothing about which one was close.
        return sum(hmac.compare_digest(key, given.encode()) for key in self._keys) > 0


def _name(host: str) -> str:
    """Return the name in a Host header, without a port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _forbidden(message: str) -> ApiError:
    return ApiError(message, status=403, kind="permission_error")
