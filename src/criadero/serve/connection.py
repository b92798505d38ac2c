"""One connection of a client: uvicorn's HTTP/1.1, with an end to what may be waited for.

Entry point: `connection_class`, which is handed to uvicorn. A client that does not finish the head of a
request, or takes nothing of what was written for it, is let go; uvicorn itself would wait for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from criadero.serve.limits import Limits


class Connection(H11Protocol):
    """Uvicorn's protocol with two more timers."""

    limits: Limits
    _head: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _untaken = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; what comes when no request is open is part of the next head."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop(self._head)
            self._head = None
        elif self._head is None:
            self._await_head()

    def pause_writing(self) -> None:
        """Notice that the client takes less than is written."""
        super().pause_writing()
        self._await_taking()

    def resume_writing(self) -> None:
        """Notice that the client goes on taking."""
        super().resume_writing()
        self._stop(self._taking)

    def on_response_complete(self) -> None:
        """Watch what is written and not taken yet; uvicorn does not."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._await_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of everything."""
        super().connection_lost(exc)
        self._stop(self._head)
        self._stop(self._taking)

    def _await_head(self) -> None:
        self._head = self.loop.call_later(self.limits.header_seconds, self.transport.abort)

    def _await_taking(self) -> None:
        self._stop(self._taking)
        self._untaken = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.limits.stall_seconds, self._check_taking)

    def _check_taking(self) -> None:
        if self.transport.get_write_buffer_size() >= self._untaken:
            self.transport.abort()
        else:
            self._await_taking()

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


def connection_class(limits: Limits) -> type[Any]:
    """Return the class of connections with these limits; uvicorn makes its objects itself."""
    return type("Connection", (Connection,), {"limits": limits})
