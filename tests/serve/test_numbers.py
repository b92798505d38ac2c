"""What the server says of itself: its metrics, its log, and the ids of a text."""

from __future__ import annotations

import http.client
import logging

import pytest
from prometheus_client.parser import text_string_to_metric_families

from generate.tiny_model import byte_tokenizer
from serve.running import running, until

NO_END = {"257": -100, "258": -100}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


def numbers(server) -> dict[str, float]:
    """Every sample of `/metrics`, read by Prometheus's own parser."""
    answered = server.ask("/metrics")
    assert answered.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answered.body.decode())
    return {
        sample.name.removeprefix("criadero_") + "".join(sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_count_what_was_done(server):
    before = numbers(server)
    body = {"prompt": "Hello, hello", "max_tokens": 5, "temperature": 0, "logit_bias": {"2": -100}, "n": 2}
    assert server.ask("/v1/completions", body).status == 200
    assert server.ask("/v1/completions", {"prompt": 3}).status == 400
    after = numbers(server)
    prompt = len(byte_tokenizer().encode("Hello, hello", bos=True))
    read = after["prompt_tokens_total"] - before["prompt_tokens_total"]
    reused = after["prompt_tokens_reused_total"] - before["prompt_tokens_reused_total"]
    assert read + reused == 2 * prompt - (after["decoded_tokens_total"] - before["decoded_tokens_total"] - 8)
    assert after["requests_total"] == before["requests_total"] + 2
    assert after["http_requests_total400"] == before.get("http_requests_total400", 0) + 1
    assert after["answer_seconds_count"] == before["answer_seconds_count"] + 1
    assert 0 < after["time_to_first_token_seconds_sum"] <= after["answer_seconds_sum"]
    assert after["requests_open"] == 0
    assert after["cache_tokens_free"] <= after["cache_tokens"] == 2048


def test_metrics_show_what_waits(server):
    server.engine.hold()
    try:
        with server.open("/v1/completions", {"prompt": "a", "max_tokens": 400, "logit_bias": NO_END}):
            until(lambda: numbers(server)["requests_open"] == 1)
    finally:
        server.engine.go_on()
    until(lambda: numbers(server)["requests_open"] == 0)
    assert numbers(server)["requests_cancelled_total"] >= 1


def test_the_log_has_one_line_for_each_request_whatever_it_holds(server, caplog):
    caplog.set_level(logging.INFO, "criadero")
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", "/%0d%0aerror:%20forged%0a%1b[31m?secret=1")
    assert connection.getresponse().status == 404
    connection.close()
    server.ask("/health")
    until(lambda: "/health" in caplog.text)
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(" in ")[0] for line in lines[-2:]] == [
        '127.0.0.1 "GET /\\r\\nerror: forged\\n\\u001b[31m" 404',
        '127.0.0.1 "GET /health" 200',
    ]


@pytest.mark.parametrize("prefix", ["/v1", ""])
@pytest.mark.parametrize("text", ["Hello, llama", "", "</s><s>", "\U0001f999\x00\n"])
def test_a_text_becomes_ids_and_a_text_again(server, prefix, text):
    ids = server.ask(f"{prefix}/tokenize", {"content": text}).json["tokens"]
    assert ids == byte_tokenizer().encode(text)
    assert server.ask(f"{prefix}/detokenize", {"tokens": ids}).json == {"content": text}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("tokenize", {}),
        ("tokenize", {"content": 3}),
        ("tokenize", {"content": "\ud800"}),
        ("detokenize", {}),
        ("detokenize", {"tokens": "3"}),
        ("detokenize", {"tokens": [True]}),
        ("detokenize", {"tokens": [-1]}),
        ("detokenize", {"tokens": [10**20]}),
    ],
)
def test_what_is_no_text_or_no_ids_is_refused_by_name(server, path, body):
    answered = server.ask(f"/v1/{path}", body)
    assert answered.status == 400
    assert answered.json["error"]["param"] == {"tokenize": "content", "detokenize": "tokens"}[path]
