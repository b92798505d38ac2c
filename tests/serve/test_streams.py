"""Answers on a real socket: what is streamed is what is sent whole, and every stream ends as it should."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from criadero.generate.engine import Generator
from criadero.generate.sampling import SamplingConfig
from criadero.serve.limits import Limits
from generate.tiny_model import BOS, ScriptedModel, byte_tokenizer, tiny_model
from serve.running import Answered, Running, running, until

FAMILY = "a👩‍👩‍👧é 漢"


def plain(prompts: list[list[int]], **settings) -> dict:
    return {"prompts": prompts, "max_tokens": 20, **settings}


def text_of(answered: Answered, *, index: int = 0) -> str:
    return "".join(event["text"] for event in tokens_of(answered, index=index))


def tokens_of(answered: Answered, *, index: int = 0) -> list[dict]:
    return [e for e in answered.events if isinstance(e, dict) and e.get("index") == index]


def whole_and_streamed(script: bytes, **settings) -> tuple[str, str]:
    """Answer the same twice, whole and streamed; return both texts."""
    texts = []
    for stream in (False, True):
        with running(model=ScriptedModel(script)) as server:
            answered = server.ask("/plain", plain([[BOS]], max_tokens=len(script), stream=stream, **settings))
        assert answered.status == 200
        if stream:
            texts.append(text_of(answered))
        else:
            texts.append("".join(token["text"] for token in answered.json["answers"][0]))
    return texts[0], texts[1]


def test_a_stream_has_its_opening_its_tokens_its_closing_and_done():
    with running() as server:
        answered = server.ask("/plain", plain([[BOS, 7]], stream=True))
        whole = server.ask("/plain", plain([[BOS, 7]])).json["answers"][0]
    assert answered.headers["content-type"] == "text/event-stream"
    assert answered.headers["cache-control"] == "no-cache"
    opening, *tokens, closing, done = answered.events
    assert (opening, closing, done) == ({"prompts": [2]}, {"closing": True}, "[DONE]")
    assert tokens == whole
    assert [token["end"] for token in tokens] == [None] * 19 + ["length"]
    assert answered.body.endswith(b"\n\ndata: [DONE]\n\n")


def test_characters_split_across_tokens_are_streamed_whole():
    whole, streamed = whole_and_streamed(FAMILY.encode())
    assert whole == streamed == FAMILY


@pytest.mark.parametrize(("stop", "text"), [("ENDE", "so ENEN"), ("👧é", "so ENENENDE 👩"), ("none", None)])
def test_a_stop_string_split_across_tokens_ends_both_alike(stop, text):
    script = "so ENENENDE 👩👧é!"
    whole, streamed = whole_and_streamed(script.encode(), stop=[stop])
    assert whole == streamed == (script if text is None else text)


def test_several_answers_of_one_request_are_told_apart_and_each_is_right():
    prompts = [[BOS, 7], [BOS, 8, 9], [BOS, 7]]
    with running() as server:
        answered = server.ask("/plain", plain(prompts, stream=True))
    alone = Generator(tiny_model(max_seq_len=512), byte_tokenizer())
    for at, prompt in enumerate(prompts):
        right = alone.generate(prompt, SamplingConfig(temperature=0, max_tokens=20), end_ids=())
        assert [token["id"] for token in tokens_of(answered, index=at)] == list(right.ids)


def test_32_streams_at_once_lose_nothing_and_none_waits_for_the_others():
    bodies = [plain([[BOS, at]], stream=True, max_tokens=60) for at in range(32)]
    with running(max_batch=32, cache_tokens=4096) as server:
        server.engine.hold()
        with ThreadPoolExecutor(32) as clients:
            answers = [clients.submit(server.ask, "/plain", body) for body in bodies]
            until(lambda: server.worker.requests == 32)
            server.engine.allow(30)
            until(lambda: server.engine.steps >= 30)
            counted = [s.ids[s.ticket.prompt_tokens :] for s in server.engine._decoding]
            server.engine.go_on()
            answered = [answer.result(timeout=30) for answer in answers]
        assert len(counted) == 32
        assert {len(ids) for ids in counted} <= {29, 30}
        alone = [server.ask("/plain", body | {"stream": False}).json["answers"][0] for body in bodies]
    assert [tokens_of(one) for one in answered] == alone


def test_a_stream_with_nothing_to_say_sends_comments():
    with running(limits=Limits(ping_seconds=0.05)) as server:
        server.engine.hold()
        threading.Timer(0.4, server.engine.go_on).start()
        answered = server.ask("/plain", plain([[BOS]], stream=True))
    assert answered.body.count(b": ping\n\n") >= 3
    assert len(tokens_of(answered)) == 20


def test_a_fault_of_the_engine_is_the_last_event_of_a_stream_and_a_500_of_a_whole_answer():
    with running() as server:
        right = server.ask("/plain", plain([[BOS]]))
        server.engine.hold()
        with ThreadPoolExecutor(2) as clients:
            answers = [
                clients.submit(server.ask, "/plain", plain([[BOS]], stream=stream)) for stream in (0, 1)
            ]
            until(lambda: server.worker.requests == 3)
            server.engine.allow(3)
            until(lambda: server.engine.steps >= 20 + 3)
            server.engine.fault = RuntimeError("the device is gone")
            server.engine.go_on()
            whole, streamed = (answer.result(timeout=30) for answer in answers)
        assert whole.status == 500
        assert whole.json["error"]["type"] == "server_error"
        assert streamed.status == 200
        assert streamed.events[-1] == whole.json
        assert len(tokens_of(streamed)) < 20
        assert b"[DONE]" not in streamed.body
        assert server.ask("/health").status == 200
        assert server.ask("/plain", plain([[BOS]])).json == right.json


def test_a_mistake_in_writing_ends_that_stream_only(caplog):
    with running(model=ScriptedModel(b"ab?d" * 2)) as server, caplog.at_level(logging.CRITICAL):
        broken = server.ask("/plain", plain([[BOS]], max_tokens=4, stream=True, refused="?"))
        until(lambda: not server.engine.has_work)
    assert "ab".startswith(text_of(broken))  # what came in one batch with it is lost
    assert broken.events[-1]["error"]["type"] == "server_error"
    assert "known" not in broken.events[-1]["error"]["message"]


def test_a_full_queue_is_answered_429_before_anything_is_sent():
    with running(max_batch=1, limits=Limits(queued=1)) as server:
        server.engine.hold()
        waiting = [server.open("/plain", plain([[BOS]], stream=True)) for _ in range(2)]
        until(lambda: server.worker.requests == 2)
        for stream in (False, True):
            refused = server.ask("/plain", plain([[BOS]], stream=stream))
            assert (refused.status, refused.headers["retry-after"]) == (429, "1")
            assert refused.json["error"]["code"] == "queue_full"
        for connection in waiting:
            connection.close()
        until(lambda: not server.worker._places)
        server.engine.go_on()
        assert server.ask("/plain", plain([[BOS]])).status == 200


def test_a_client_that_reads_late_gets_everything():
    def late(server: Running) -> bytes:
        with server.open("/plain", plain([[BOS]], stream=True, max_tokens=400)) as connection:
            until(lambda: server.worker.requests == 1 and not server.engine.has_work)
            received = b""
            while b"[DONE]" not in received:
                received += connection.recv(1000)
            return received

    with running() as server:
        assert late(server).count(b'"index":0') == 400
