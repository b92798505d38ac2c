"""The thread that runs the model: what it takes, refuses, lets go and survives. No sockets here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from criadero.errors import FormatError
from criadero.generate.engine import Generator
from criadero.generate.request import Request
from criadero.generate.sampling import SamplingConfig
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.model import ServedModel
from criadero.serve.worker import Answer, Worker
from generate.tiny_model import BOS, byte_tokenizer, tiny_model
from serve.running import PacedEngine

PROMPT = (BOS, 72, 101)


def request(tokens: int = 5, *, prompt: Sequence[int] = PROMPT) -> Request:
    return Request(prompt, SamplingConfig(temperature=0, max_tokens=tokens), end_ids=())


@asynccontextmanager
async def working(*, queued: int = 64, max_batch: int = 4) -> AsyncIterator[tuple[Worker, PacedEngine]]:
    engine = PacedEngine(tiny_model(max_seq_len=512), cache_tokens=2048, max_batch=max_batch)
    worker = Worker(lambda: ServedModel(engine, "tiny", "plain", 0), limits=Limits(queued=queued))
    worker.start()
    try:
        await worker.opened()
        yield worker, engine
    finally:
        engine.go_on()
        worker.close()
    assert not worker._thread.is_alive()


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)


async def ids_of(answer: Answer) -> list[list[int]]:
    ids: list[list[int]] = [[] for _ in answer.tickets]
    async for index, token in answer:
        ids[index].append(token.id)
    return ids


def test_an_answer_has_the_tokens_that_the_engine_gives_alone():
    async def run():
        async with working() as (worker, _):
            prompts = [PROMPT, (BOS, 1, 2, 3), (BOS, 9)]
            answer = worker.submit([request(20, prompt=prompt) for prompt in prompts])
            ids = await ids_of(answer)
            answer.cancel()
            assert answer.over
            assert (worker.requests, worker.cancelled) == (3, 0)
            return prompts, ids

    prompts, ids = asyncio.run(run())
    alone = Generator(tiny_model(max_seq_len=512), byte_tokenizer())
    sampling = SamplingConfig(temperature=0, max_tokens=20)
    assert ids == [list(alone.generate(prompt, sampling, end_ids=()).ids) for prompt in prompts]


def test_32_answers_all_advance_together():
    async def run():
        async with working(max_batch=32) as (worker, engine):
            engine.hold()
            answers = [worker.submit([request(60, prompt=(BOS, 7, at))]) for at in range(32)]
            counts = [0] * 32
            engine.allow(40)
            await until(lambda: engine.steps == 40)
            await asyncio.sleep(0.01)
            for at, answer in enumerate(answers):
                counts[at] = len(await answer.more(within=5))
            assert max(counts) - min(counts) <= 1
            assert min(counts) >= 38
            engine.go_on()
            for answer in answers:
                await ids_of(answer)

    asyncio.run(run())


def test_a_cancelled_answer_is_stopped_at_the_next_step_and_its_cache_is_free():
    async def run():
        async with working() as (worker, engine):
            answer = worker.submit([request(400)])
            await until(lambda: engine.counts.decoded > 3)
            engine.hold()
            answer.cancel()
            decoded = engine.counts.decoded
            engine.go_on()
            await until(lambda: not engine.has_work)
            assert engine.counts.decoded <= decoded + 2
            assert engine.free_tokens == engine.capacity_tokens
            assert (worker.requests, worker.cancelled) == (1, 1)
            assert answer.tickets[0].finish_reason == "cancelled"

    asyncio.run(run())


def test_one_more_than_may_wait_is_refused_and_told_when_to_come_again():
    async def run():
        async with working(queued=3, max_batch=2) as (worker, engine):
            engine.hold()
            answers = [worker.submit([request()]) for _ in range(5)]
            with pytest.raises(ApiError) as refused:
                worker.submit([request()])
            assert (refused.value.status, refused.value.retry_after) == (429, 1)
            answers.pop().cancel()
            answers.append(worker.submit([request()]))
            engine.go_on()
            for answer in answers:
                assert len((await ids_of(answer))[0]) == 5
            with pytest.raises(ApiError) as refused:
                worker.submit([request()] * 6)
            assert refused.value.status == 400  # it would never fit: clients repeat a 429

    asyncio.run(run())


def test_what_the_engine_refuses_is_a_wrong_request_and_leaves_nothing_behind():
    async def run():
        async with working() as (worker, engine):
            for prompt in ((), (BOS,) * 600, (99_999,)):
                with pytest.raises(ApiError) as refused:
                    worker.submit([request(), request(prompt=prompt)])
                assert refused.value.status == 400
                assert refused.value.param == "prompt"
            await until(lambda: not engine.has_work)
            assert engine.counts.prefilled == 0
            assert worker.requests == 0

    asyncio.run(run())


def test_a_step_that_raises_fails_the_answers_of_then_and_the_next_ones_are_right():
    async def run():
        async with working() as (worker, engine):
            right = await ids_of(worker.submit([request(30)]))
            engine.hold()
            broken = [worker.submit([request(30)]) for _ in range(6)]
            engine.allow(5)
            await until(lambda: engine.steps >= 5)
            engine.fault = RuntimeError("the device is gone")
            engine.go_on()
            for answer in broken:
                with pytest.raises(ApiError, match="failed") as failed:
                    await ids_of(answer)
                assert failed.value.status == 500
                assert "device" not in failed.value.message
            assert worker.state == "ready"
            assert engine.free_tokens == engine.capacity_tokens
            assert await ids_of(worker.submit([request(30)])) == right

    asyncio.run(run())


def test_an_engine_that_cannot_be_mended_is_not_served_any_more():
    async def run():
        async with working() as (worker, engine):
            engine.hold()
            answer = worker.submit([request()])
            engine.reset = lambda: setattr(engine, "fault", RuntimeError("still gone"))
            engine.fault = RuntimeError("the device is gone")
            engine.go_on()
            with pytest.raises(ApiError):
                await ids_of(answer)
            await until(lambda: worker.state == "failed")
            assert str(worker.problem) == "still gone"
            with pytest.raises(ApiError) as refused:
                worker.submit([request()])
            assert refused.value.status == 503

    asyncio.run(run())


def test_logits_that_are_no_numbers_fail_their_answer_alone():
    async def run():
        async with working() as (worker, engine):
            right = await ids_of(worker.submit([request(10)]))
            unused = next(i for i in range(200) if i not in right[0] and i not in PROMPT)
            engine.model.embedding.weight.data[unused] = float("nan")
            good = worker.submit([request(10)])
            bad = worker.submit([request(10, prompt=(BOS, unused))])
            with pytest.raises(ApiError, match="not finite") as failed:
                await ids_of(bad)
            assert failed.value.status == 500
            assert await ids_of(good) == right
            await until(lambda: not engine.has_work)
            assert worker.state == "ready"

    asyncio.run(run())


def test_draining_takes_nothing_new_finishes_what_runs_and_ends_what_takes_too_long():
    async def run():
        async with working() as (worker, engine):
            engine.hold()
            answer = worker.submit([request(3)])
            draining = asyncio.create_task(worker.drain(10))
            await asyncio.sleep(0)
            assert worker.state == "draining"
            with pytest.raises(ApiError) as refused:
                worker.submit([request()])
            assert refused.value.status == 503
            engine.go_on()
            assert len((await ids_of(answer))[0]) == 3
            answer.cancel()
            await draining
        async with working() as (worker, engine):
            engine.hold()
            answer = worker.submit([request(3)])
            await worker.drain(0.05)
            with pytest.raises(ApiError, match="stopping"):
                await ids_of(answer)

    asyncio.run(run())


def test_waiting_for_tokens_ends_after_the_time_given():
    async def run():
        async with working() as (worker, engine):
            engine.hold()
            answer = worker.submit([request(3)])
            assert await answer.more(within=0.01) == []
            assert not answer.over
            engine.go_on()
            assert len((await ids_of(answer))[0]) == 3

    asyncio.run(run())


def test_a_model_that_cannot_be_opened_is_said_to_whoever_waits_for_it():
    def cannot() -> ServedModel:
        raise FormatError("no model here")

    async def run():
        worker = Worker(cannot, limits=Limits())
        assert worker.state == "loading"
        with pytest.raises(ApiError, match="loading"):
            worker.submit([request()])
        worker.start()
        with pytest.raises(FormatError):
            await worker.opened()
        assert worker.state == "failed"
        with pytest.raises(ApiError) as refused:
            _ = worker.model
        assert refused.value.status == 503
        worker.close()

    asyncio.run(run())
