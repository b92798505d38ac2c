"""The routes: what is served, how the server is, and what is said where there is nothing."""

from __future__ import annotations

import threading

import pytest

from criadero.serve.limits import Limits
from criadero.serve.model import ServedModel
from serve.running import ask, running, serving, until

ENTRY = {
    "id": "tiny",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "criadero",
    "context_length": 512,
}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_models_are_listed_with_and_without_the_prefix(server, prefix):
    listed = server.ask(f"{prefix}/models")
    assert listed.json == {"object": "list", "data": [ENTRY]}
    assert server.ask(f"{prefix}/models/tiny").json == ENTRY
    assert server.ask(f"{prefix}/health").json == {"status": "ok"}


def test_a_model_that_is_not_served_is_404_and_names_the_one_that_is(server):
    answered = server.ask("/v1/models/meta-llama/Llama-2-7b")
    assert answered.status == 404
    assert answered.json["error"]["code"] == "model_not_found"
    assert "'tiny'" in answered.json["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/docs", "/openapi.json", "/v1", "/..%2f..%2fetc/passwd", "//"]
)
def test_what_is_not_there_is_404_in_json(server, path):
    answered = server.ask(path)
    assert answered.status == 404
    assert answered.json["error"]["code"] == "not_found"


def test_a_wrong_method_is_405_and_names_the_right_one(server):
    answered = server.ask("/v1/models", {})
    assert answered.status == 405
    assert "GET" in answered.headers["allow"]
    assert "GET" in answered.json["error"]["message"]


def test_the_page_is_at_the_root(server):
    answered = server.ask("/")
    assert answered.status == 200
    assert "default-src 'none'" in answered.headers["content-security-policy"]


def test_the_context_is_what_the_cache_can_hold():
    with running(cache_tokens=128) as server:
        assert server.ask("/v1/models").json["data"][0]["context_length"] == 128


def test_a_model_that_loads_or_cannot_be_loaded_is_503_and_not_a_wait():
    loaded = threading.Event()

    def open_model() -> ServedModel:
        loaded.wait(10)
        raise MemoryError("no room")

    with serving(open_model, limits=Limits()) as (port, worker, _):
        for path in ("/health", "/v1/models"):
            answered = ask(port, path)
            assert (answered.status, answered.json["error"]["code"]) == (503, "loading")
            assert answered.headers["retry-after"] == "2"
        assert ask(port, "/").status == 200
        loaded.set()
        until(lambda: worker.state == "failed")
        answered = ask(port, "/health")
        assert (answered.status, answered.json["error"]["code"]) == (503, "failed")
        assert "room" not in answered.json["error"]["message"]
