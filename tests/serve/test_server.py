"""`criadero serve` as a program: its address, its keys, its names, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from criadero.errors import UsageError
from criadero.serve.guard import LOOPBACK, Guard
from criadero.serve.limits import Limits
from criadero.serve.server import serve
from criadero.serve.worker import Worker
from generate.saved_model import save_random_model
from serve.running import ask, running


@contextmanager
def program(folder, *options):
    """Run the program on a free port; yield it and its port."""
    command = [sys.executable, "-m", "criadero", "serve", str(folder), "--port", "0", *options]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        try:
            lines = [process.stderr.readline()]
            while lines[-1] and "is ready" not in lines[-1]:
                lines.append(process.stderr.readline())
            assert lines[-1], "".join(lines)
            yield process, int(lines[-1].split(" ")[0].rpartition(":")[2])
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "small"
    save_random_model(folder, context=4096)
    return folder


def test_a_key_of_a_file_is_asked_for_and_a_signal_lets_the_answer_finish(folder, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("first\nsecond\n")
    with program(folder, "--api-key-file", str(keys)) as (process, port):
        assert ask(port, "/v1/models").status == 401
        assert ask(port, "/v1/models", headers={"Authorization": "Bearer secon"}).status == 401
        allowed = {"Authorization": "Bearer second", "Content-Type": "application/json"}
        assert ask(port, "/v1/models", headers=allowed).json["data"][0]["id"] == "small"
        body = {"prompt": "a", "max_tokens": 300, "stream": True, "logit_bias": {"2": -100}}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/completions", json.dumps(body), headers=allowed)
        response = connection.getresponse()
        response.readline()
        process.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert process.wait(timeout=30) == 0
        with pytest.raises(ConnectionRefusedError):
            ask(port, "/health")


def test_a_public_address_without_a_key_is_refused():
    worker = Worker(lambda: pytest.fail("nothing is loaded"), limits=Limits())
    with pytest.raises(UsageError, match="no API key"):
        serve(worker, host="0.0.0.0", port=0, keys=(), limits=Limits(), on_ready=print)


def test_a_model_that_cannot_be_opened_ends_the_program_with_its_error(tmp_path):
    command = [sys.executable, "-m", "criadero", "serve", str(tmp_path / "none"), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: ")


@pytest.fixture(scope="module")
def guarded():
    with running(wrap=lambda app: Guard(app, keys=["k"], hosts=LOOPBACK)) as server:
        yield server


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"X-Api-Key": "k"}, 200),
        ({"X-Api-Key": "k", "Host": "evil.test"}, 403),
        ({"X-Api-Key": "k", "Host": "localhost"}, 200),
        ({"X-Api-Key": "k", "Host": "[::1]:80"}, 200),
        ({"X-Api-Key": "k", "Host": "[bad"}, 403),
        ({"X-Api-Key": "k", "Origin": "https://evil.test"}, 403),
        ({"X-Api-Key": "k", "Origin": "null"}, 403),
        ({"X-Api-Key": "k", "Origin": "http://localhost:5", "Host": "localhost:5"}, 200),
        ({"X-Api-Key": "\xe9"}, 401),
        ({}, 401),
    ],
)
def test_who_may_ask(guarded, headers, status):
    assert guarded.ask("/v1/models", headers=headers).status == status


@pytest.mark.parametrize("path", ["/metrics", "/tokenize", "/v1/chat/completions", "/page/../models", "//"])
def test_every_path_but_the_page_and_health_needs_the_key(guarded, path):
    assert guarded.ask(path).status == 401
    assert guarded.ask("/").status == guarded.ask("/health").status == 200
