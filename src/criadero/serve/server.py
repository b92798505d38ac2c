"""Running the application on a socket, from the first signal to the last answer.

Entry point: `serve`. The socket listens while the model loads; on SIGTERM or Ctrl-C no more connections are
taken and the answers under way may finish, a second signal ends them.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import uvicorn

from criadero.errors import ResourceError, UsageError
from criadero.serve.access import Access
from criadero.serve.app import create_app
from criadero.serve.connection import connection_class
from criadero.serve.guard import LOOPBACK, Guard
from criadero.serve.limits import Limits
from criadero.serve.metrics import Metrics
from criadero.serve.worker import Worker

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def serve(
    worker: Worker,
    *,
    host: str,
    port: int,
    keys: Collection[str],
    limits: Limits,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until a signal comes; the worker is started here and closed at the end.

    Args:
        worker: who answers.
        host: address to listen on.
        port: 0 takes a free one.
        keys: API keys; none only on a loopback address.
        limits: what clients may ask.
        on_ready: called with the address of the page when the model is there.

    Raises:
        UsageError: others could reach the server, and there is no key.
        ResourceError: the address cannot be listened on.
        CriaderoError: the model cannot be opened.
    """
    is_local = host in LOOPBACK
    if not is_local and not keys:
        raise UsageError(
            f"`{host}` can be reached by others, and there is no API key",
            hint="give one with --api-key-file, or listen on 127.0.0.1",
        )
    with _listening(host, port) as listener:
        metrics = Metrics(worker)
        app = create_app(worker, limits=limits, metrics=metrics)
        guarded = Guard(app, keys=keys, hosts=LOOPBACK if is_local else None)
        config = uvicorn.Config(
            Access(guarded, metrics=metrics),
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            http=connection_class(limits),
            limit_concurrency=limits.connections,
            server_header=False,
        )
        worker.start()
        try:
            asyncio.run(_run(_Server(config, worker, limits), worker, listener, on_ready=on_ready))
        finally:
            worker.close()


class _Server(uvicorn.Server):
    """Uvicorn's server, which lets answers finish and leaves other handlers of signals as they were."""

    def __init__(self, config: uvicorn.Config, worker: Worker, limits: Limits) -> None:
        super().__init__(config)
        self._worker = worker
        self._limits = limits

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._worker.drain(0 if self.force_exit else self._limits.drain_seconds))
            group.create_task(super().shutdown(sockets))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        if self.force_exit:  # nothing is to be waited for, not even a step of the model
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)


async def _run(
    server: _Server, worker: Worker, listener: socket.socket, *, on_ready: Callable[[str], None]
) -> None:
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    opened = asyncio.create_task(worker.opened())
    await asyncio.wait({serving, opened}, return_when=asyncio.FIRST_COMPLETED)
    if opened.done() and opened.exception() is None:
        on_ready(_address(listener))
    server.should_exit = server.should_exit or (opened.done() and opened.exception() is not None)
    await serving
    if opened.done():
        opened.result()
    opened.cancel()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as problem:
        raise ResourceError(
            f"cannot listen on {host} port {port}: {problem}", hint="choose another one with --port or --host"
        ) from problem
    with listener:
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
