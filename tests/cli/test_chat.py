"""The verb reads lines and streams answers; Ctrl-C stops one, twice leaves."""

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from criadero.cli import chat as verb
from criadero.cli.chat import chat
from criadero.errors import FormatError, TokenizerError
from generate.saved_model import save_random_model

GREEDY = ["--temperature", "0", "--device", "cpu"]
PROGRAM = "import sys, typer; from criadero.cli.chat import chat; typer.run(chat)"

app = typer.Typer()
app.command()(chat)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_random_model(folder, context=100_000)
    return folder


def run(*arguments, **options):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], **options)
    if result.exception is not None:
        raise result.exception
    return result


def test_every_line_is_answered_and_a_base_model_says_what_it_is(folder, caplog, monkeypatch):
    monkeypatch.setattr("criadero.notices._said", set())
    result = run(folder, *GREEDY, "--max-tokens", "9", input="the quick\n\nbrown fox\n")
    assert len(result.stdout.splitlines()) >= 2
    assert result.stderr.count("cut off after 9 tokens") == 2
    assert "base model" in caplog.text


def test_new_forgets_the_turns_before(folder):
    def answers(text):
        return run(folder, *GREEDY, "--max-tokens", "12", input=text).stdout

    first = answers("the lazy\n")
    assert answers("the lazy\n/new\nthe lazy\n") == first * 2
    assert answers("the lazy\nthe lazy\n") != first * 2


def test_an_unknown_template_is_refused_and_can_be_replaced(folder, tmp_path):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "chat_template.jinja").write_text("{{ messages | strange }}")
    with pytest.raises(FormatError) as problem:
        run(copy, input="hello\n")
    assert "--template" in problem.value.hint
    assert run(copy, "--template", "llama2", *GREEDY, "--max-tokens", "3", input="hello\n").stdout
    with pytest.raises(TokenizerError, match="not known"):
        run(copy, "--template", "nonsense", input="hello\n")


def test_a_conversation_that_is_too_long_gets_a_clear_message(tmp_path):
    save_random_model(tmp_path / "model", context=24)
    result = run(tmp_path / "model", *GREEDY, "--max-tokens", "2", input="fox " * 50 + "\n/new\nfox\n")
    assert "the model's context holds 24" in result.stderr
    assert "/new" in result.stderr
    assert result.stdout  # the short line after it was answered


def test_ctrl_c_at_the_prompt_leaves_only_the_second_time(monkeypatch):
    class Conversation:
        def answer(self, line, sampling, on_token):
            raise KeyboardInterrupt

    script = iter([KeyboardInterrupt, "hello", "hello", KeyboardInterrupt, "never read"])

    def read_line():
        step = next(script)
        if step is KeyboardInterrupt:
            raise step
        return step

    monkeypatch.setattr(verb, "_read_line", read_line)
    verb._talk(Conversation(), None)
    assert next(script) == "never read"


def test_ctrl_c_in_a_terminal_stops_the_answer_and_a_second_one_leaves(folder):
    terminal, inside = pty.openpty()
    command = [sys.executable, "-c", PROGRAM, str(folder), *GREEDY, "--max-tokens", "90000"]
    process = subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside, start_new_session=True)
    os.close(inside)
    unread = b""

    def read_until(text):
        nonlocal unread
        while text not in unread:
            assert select.select([terminal], [], [], 60)[0], f"{text!r} never came after {unread[-2000:]!r}"
            unread += os.read(terminal, 65536)
        unread = unread.split(text, 1)[1]

    try:
        read_until(b"> ")
        os.write(terminal, b"the quick\n")
        read_until(b"the quick\r\n")
        read_until(b" ")
        process.send_signal(signal.SIGINT)
        read_until(b"(stopped; Ctrl-C again leaves)")
        read_until(b"> ")
        # A signal between the prompt and the wait for a key is seen at the next one only.
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
                break
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
