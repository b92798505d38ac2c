"""The `llm` program against the server, as its users run it: by its address alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from serve.running import running

QUESTION = "What is a llama?"


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


def llm(server, folder, *arguments: str) -> str:
    """Run the program on the server; return what it writes."""
    return subprocess.run(
        [sys.executable, "-m", "llm", "openai", "endpoint", f"{server.url}/v1", *arguments],
        env={**os.environ, "LLM_USER_PATH": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout


def test_it_lists_the_model(server, tmp_path):
    assert llm(server, tmp_path, "--models").split() == ["tiny"]


def test_it_prints_the_answer(server, tmp_path):
    asked = {"messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 12}
    choice = server.ask("/v1/chat/completions", asked).json["choices"][0]
    options = ["-m", "tiny", "-o", "temperature", "0", "-o", "max_tokens", "12"]
    assert choice["message"]["content"]
    assert llm(server, tmp_path, *options, QUESTION) == choice["message"]["content"] + "\n"


def test_it_says_what_the_server_refuses(server, tmp_path):
    with pytest.raises(subprocess.CalledProcessError) as failed:
        llm(server, tmp_path, "-m", "tiny", "long " * 500)
    assert "the context holds 512" in failed.value.stderr
