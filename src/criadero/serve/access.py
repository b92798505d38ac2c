"""One log line for each request, and a count of the answers by their status.

Entry point: `Access`, ASGI middleware around everything else. Whatever a path holds, its line stays one line.
"""

from __future__ import annotations

import json
import logging
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from criadero.serve.metrics import Metrics

_LONGEST_PATH = 200

logger = logging.getLogger("criadero")


class Access:
    """Logs and counts requests; `499` stands for a client that left before its answer began."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        begun, status = monotonic(), 499

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            self._metrics.answered.labels(str(status)).inc()
            who = (scope.get("client") or ("-",))[0]
            # As JSON, so that a line break in a path is two harmless characters.
            what = json.dumps(f"{scope['method']} {scope['path'][:_LONGEST_PATH]}")
            logger.info("%s %s %d in %.3f s", who, what, status, monotonic() - begun)
