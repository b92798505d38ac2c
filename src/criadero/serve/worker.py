"""The one thread that runs the model, and the answers that come out of it.

Entry points: `Worker.submit`, from the event loop, and the `Answer` it returns. The thread opens the model,
then steps its engine while there is work and sleeps otherwise. Tokens reach the event loop once a step, all
together; who gets which is known on the loop alone, so that nothing but the engine's queue is shared. A
step that raises fails the answers of then; the engine is emptied and tried before it goes on.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from time import monotonic
from typing import Any, Literal

from criadero.errors import CriaderoError, ResourceError
from criadero.generate.engine import Engine, Event
from criadero.generate.request import Request, Ticket, Token
from criadero.generate.sampling import SamplingConfig
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.model import ServedModel

State = Literal["loading", "ready", "draining", "failed"]

logger = logging.getLogger("criadero")

_FAULT = "The model failed while it worked on this answer. Try again; the server's log says what happened."
_STOPPED = "The server is stopping and did not finish this answer. Try again later."


class Answer:
    """The tokens of some requests that belong together, as they come. Used on the event loop only.

    Whoever got it cancels it in a `finally`; that is nothing once it is over.

    Attributes:
        tickets: of the requests, in their order.
        first_token_seconds: from the queue to the first token; None until then.
    """

    def __init__(self, tickets: Sequence[Ticket], *, on_close: Callable[[Answer], None]) -> None:
        self.tickets = tuple(tickets)
        self.first_token_seconds: float | None = None
        self._queued = monotonic()
        self._left = len(self.tickets)
        self._on_close = on_close
        self._come: list[tuple[int, Token]] = []
        self._problem: ApiError | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def seconds(self) -> float:
        """How long ago it was queued."""
        return monotonic() - self._queued

    @property
    def over(self) -> bool:
        """Whether every token of every request was taken."""
        return not (self._come or self._left or self._problem)

    async def more(self, *, within: float | None = None) -> list[tuple[int, Token]]:
        """Return the tokens that have come, each with the number of its request, waiting for the first.

        Args:
            within: seconds after which to return an empty list.

        Raises:
            ApiError: the answer cannot be finished.
        """
        if not (self._come or self._problem) and self._left:
            await self._wait(within)
        if not self._come and self._problem is not None:
            raise self._problem
        come, self._come = self._come, []
        return come

    async def __aiter__(self) -> AsyncIterator[tuple[int, Token]]:
        """Yield each token with the number of its request; errors as `more`."""
        while not self.over:
            for pair in await self.more():
                yield pair

    def cancel(self) -> None:
        """Let the engine stop what is not finished."""
        self._on_close(self)

    def put(self, index: int, token: Token) -> None:
        """Take a token from the worker."""
        if self.first_token_seconds is None:
            self.first_token_seconds = self.seconds
        self._come.append((index, token))
        self._left -= token.finish_reason is not None
        self._wake()

    def fail(self, problem: ApiError) -> None:
        """End the answer with an error."""
        self._problem = self._problem or problem
        self._wake()

    async def _wait(self, seconds: float | None) -> None:
        # Not asyncio.wait_for, which makes a task of its own for each token.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Worker:
    """Owns the model. All but `start` and what is read only is called on one event loop.

    Args:
        open_model: loads what is to be served; called on the thread.
        limits: how many requests may wait.

    Attributes:
        problem: why the model could not be opened, or cannot be trusted any more.
        requests: how many requests came, each choice counted.
        cancelled: how many of them were let go before their end.
    """

    def __init__(self, open_model: Callable[[], ServedModel], *, limits: Limits) -> None:
        self._open_model = open_model
        self._limits = limits
        self._opened: Future[ServedModel] = Future()
        self._thread = threading.Thread(target=self._run, name="criadero-model", daemon=True)
        self._awake = threading.Condition()
        self._closing = False
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places: dict[Ticket, tuple[Answer, int]] = {}
        self._answers: set[Answer] = set()
        self._emptied: asyncio.Future[None] | None = None
        self.problem: BaseException | None = None
        self.requests = 0
        self.cancelled = 0

    @property
    def state(self) -> State:
        """Whether requests are taken: only when ready."""
        if self.problem is not None:
            return "failed"
        if self._draining:
            return "draining"
        return "ready" if self._opened.done() else "loading"

    @property
    def open_requests(self) -> int:
        """How many requests are running or waiting."""
        return len(self._places)

    @property
    def model(self) -> ServedModel:
        """What is served.

        Raises:
            ApiError: with status 503, it cannot be asked now.
        """
        if self.state == "ready":
            return self._opened.result()
        words = {
            "loading": "The model is still loading. Try again in a moment.",
            "draining": "The server is stopping and takes no more requests. Try again later.",
        }
        message = words.get(self.state, "The model failed. Restart the server; its log says what happened.")
        raise ApiError(message, status=503, kind="unavailable", code=self.state, retry_after=2)

    def start(self) -> None:
        """Begin to load the model."""
        self._thread.start()

    async def opened(self) -> ServedModel:
        """Wait until the model is there; raise what went wrong with it."""
        return await asyncio.shield(asyncio.wrap_future(self._opened))

    def submit(self, requests: Sequence[Request]) -> Answer:
        """Queue requests that are answered together.

        Raises:
            ApiError: 400, the engine could never do it; 429, too many wait; 503, as `model`.
        """
        engine = self.model.engine
        self._check_room(engine, len(requests))
        self._loop = asyncio.get_running_loop()
        answer = Answer(self._queue(engine, requests), on_close=self._let_go)
        self._answers.add(answer)
        self._places.update((ticket, (answer, at)) for at, ticket in enumerate(answer.tickets))
        self.requests += len(requests)
        return answer

    async def drain(self, seconds: float) -> None:
        """Take no more requests; return when all answers were taken, or end them after some seconds."""
        self._draining = True
        if self._answers:
            self._emptied = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._emptied}, timeout=seconds)
        self._fail(list(self._answers), ApiError(_STOPPED, status=503, kind="unavailable"))

    def close(self) -> None:
        """Stop the thread after the step it is in; while the model loads, it is left behind."""
        with self._awake:
            self._closing = True
            self._awake.notify()
        if self._thread.is_alive() and self._opened.done():
            self._thread.join()

    def _check_room(self, engine: Engine, wanted: int) -> None:
        most = engine.max_batch + self._limits.queued
        if wanted > most:
            raise ApiError(
                f"The request asks for {wanted} answers, at most {most} fit the queue. Ask for fewer at once."
            )
        if self.open_requests + wanted > most:
            message = f"{self.open_requests} requests are running or waiting already. Try again in a moment."
            raise ApiError(message, status=429, kind="rate_limit_error", code="queue_full", retry_after=1)

    def _queue(self, engine: Engine, requests: Sequence[Request]) -> list[Ticket]:
        tickets: list[Ticket] = []
        with self._awake:
            self._awake.notify()  # heard once this block is over
            for request in requests:
                try:
                    tickets.append(engine.submit(request))
                except CriaderoError as problem:
                    for ticket in tickets:
                        engine.cancel(ticket)
                    raise _refusal(problem) from problem
        return tickets

    def _let_go(self, answer: Answer) -> None:
        if answer not in self._answers:
            return
        self._answers.remove(answer)
        unfinished = [ticket for ticket in answer.tickets if self._places.pop(ticket, None)]
        for ticket in unfinished:
            self._opened.result().engine.cancel(ticket)
        self.cancelled += len(unfinished)
        if self._emptied is not None and not self._answers and not self._emptied.done():
            self._emptied.set_result(None)

    def _hand_out(self, events: Sequence[Event]) -> None:
        """Give tokens to their answers; those of answers let go since are dropped."""
        for ticket, token in events:
            place = self._places.get(ticket)
            if place is None:
                continue
            answer, index = place
            if token.finish_reason is not None:
                del self._places[ticket]
            if ticket.error is None:
                answer.put(index, token)
            else:
                self._fail([answer], _fault(ticket.error))

    def _fail(self, answers: Sequence[Answer], problem: ApiError) -> None:
        for answer in answers:
            self._let_go(answer)
            answer.fail(problem)

    def _fail_before(self, number: int | None) -> None:
        """Fail the answers whose requests came before one of this number; None for all."""
        self._fail(
            [a for a in self._answers if number is None or a.tickets[0].number < number],
            ApiError(_FAULT, status=500, kind="server_error"),
        )

    def _run(self) -> None:
        """Everything that happens on the thread."""
        try:
            model = self._open_model()
        except BaseException as problem:
            self.problem = problem
            self._opened.set_exception(problem)
            return
        self._opened.set_result(model)
        try:
            while self._wait_for_work(model.engine):
                self._step(model.engine)
        except BaseException as problem:
            logger.exception("the model cannot go on; restart the server")
            self.problem = problem
            self._post(self._fail_before, None)

    def _wait_for_work(self, engine: Engine) -> bool:
        with self._awake:
            self._awake.wait_for(lambda: self._closing or engine.has_work)
        return not self._closing

    def _step(self, engine: Engine) -> None:
        try:
            events = engine.step()
        except Exception:
            logger.exception("a step of the engine failed, and with it the answers it worked on")
            with self._awake:  # nothing may come in between: what is queued now belongs to the failed ones
                engine.reset()
                number = _try(engine)
            self._post(self._fail_before, number)
        else:
            if events:
                self._post(self._hand_out, events)

    def _post(self, function: Callable[[Any], None], argument: object) -> None:
        """Call a function on the event loop, if there is still one."""
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, argument)
        except RuntimeError:
            logger.debug("the event loop is closed: nobody waits for an answer")


def _try(engine: Engine) -> int:
    """Let an empty engine write two tokens, to see that it works; return the number of that request."""
    ticket = engine.submit(Request((0,), SamplingConfig(temperature=0.0, max_tokens=2, stop=())))
    while ticket.finish_reason is None:
        engine.step()
    if ticket.error is not None:
        raise ticket.error
    return ticket.number


def _words(problem: CriaderoError) -> str:
    return problem.message if problem.hint is None else f"{problem.message}; {problem.hint}"


def _refusal(problem: CriaderoError) -> ApiError:
    """Return what a client is told about a request that the engine refused."""
    code = "context_length_exceeded" if isinstance(problem, ResourceError) else None
    return ApiError(_words(problem), param="prompt", code=code)


def _fault(problem: CriaderoError) -> ApiError:
    return ApiError(_words(problem), status=500, kind="server_error")
