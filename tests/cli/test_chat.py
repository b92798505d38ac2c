"""The verb reads turns and streams answers; Ctrl-C stops an answer, Ctrl-D leaves."""

import json
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
from criadero.cli.turns import Turns
from criadero.errors import FormatError, TokenizerError
from criadero.generate.chat import Conversation
from criadero.generate.engine import Completion, Token
from criadero.generate.sampling import SamplingConfig
from criadero.tokenizer import chat as chat_module
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


def test_clear_forgets_the_turns_before(folder):
    def answers(text):
        return run(folder, *GREEDY, "--max-tokens", "12", input=text).stdout

    first = answers("the lazy\n")
    assert answers("the lazy\n/clear\nthe lazy\n") == first * 2
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
    long = "fox " * 50 + "\n"
    alone = run(tmp_path / "model", *GREEDY, "--max-tokens", "2", input=long)
    assert "/clear" not in alone.stderr
    result = run(tmp_path / "model", *GREEDY, "--max-tokens", "2", input=f"fox\n{long}/clear\nfox\n")
    assert "the model's context holds 24" in result.stderr
    assert "shorten the prompt" in result.stderr
    assert "/clear" in result.stderr
    assert len(result.stdout.splitlines()) >= 2  # the short lines before and after it were answered


def test_a_pipe_gets_one_json_object_for_each_answer(folder):
    result = run(folder, *GREEDY, "--max-tokens", "7", "--json", input="the quick\nbrown\n")
    plain = run(folder, *GREEDY, "--max-tokens", "7", input="the quick\n")
    first, second = map(json.loads, result.stdout.splitlines())
    assert first["text"] + "\n" == plain.stdout
    assert (second["completion_tokens"], second["finish_reason"]) == (7, "length")


class ScriptedConversation:
    """Answers "one", "two" and so on; an answer of "stop" is interrupted."""

    def __init__(self, answers=("one", "two", "three")):
        self.answers = list(answers)
        self.seeds = []

    def generate(self, prompt_ids, sampling, *, end_ids, on_token):
        self.seeds.append(sampling.seed)
        text = self.answers.pop(0)
        if on_token is not None:
            on_token(Token(1, text, -1.0))
        if text == "stop":
            raise KeyboardInterrupt
        return Completion(text, (1,), "stop", len(prompt_ids), sampling.seed, 0.1, 0.1)


class Lines:
    """Stdin with the given steps; an exception among them is raised."""

    def __init__(self, *steps, terminal=True):
        self.steps = list(steps)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def buffer(self):
        return self

    def readline(self):
        step = self.steps.pop(0) if self.steps else ""
        if isinstance(step, str):
            return step.encode(errors="surrogateescape")
        raise step


def talk(monkeypatch, *steps, answers=("one", "two", "three"), terminal=True, **sampling):
    """Hold a scripted conversation; return it and what the model was asked with."""
    monkeypatch.setattr("sys.stdin", Lines(*steps, terminal=terminal))
    monkeypatch.setattr(chat_module, "render", lambda template, turns, tokenizer: [1])
    monkeypatch.setattr(chat_module, "stop_ids", lambda template, tokenizer: frozenset())
    model = ScriptedConversation(answers)
    model.tokenizer = None
    conversation = Conversation(model, "chatml", system="Be brief.")
    session = verb._Session(conversation, SamplingConfig(**sampling), Turns(None), as_json=False)
    session.talk()
    return [(turn.role, turn.content) for turn in conversation.messages[1:]], model


def test_a_backslash_and_a_block_make_one_turn_of_many_lines(monkeypatch):
    said, _ = talk(monkeypatch, "a\\\n", "b\n", '"""\n', "/help\n", "\n", "  c\\\n", '"""\n', "/etc/passwd\n")
    assert [text for role, text in said if role == "user"] == ["a\nb", "/help\n\n  c\\", "/etc/passwd"]


def test_ctrl_c_at_a_prompt_says_how_to_leave_and_drops_what_was_begun(monkeypatch, capsys):
    said, _ = talk(
        monkeypatch, KeyboardInterrupt(), KeyboardInterrupt(), "x\\\n", KeyboardInterrupt(), "hi\n"
    )
    assert said == [("user", "hi"), ("assistant", "one")]
    assert capsys.readouterr().err.count("\n(Ctrl-D leaves; /help lists the commands)\n") == 3


def test_ctrl_c_in_an_answer_keeps_what_was_written_and_goes_on(monkeypatch, capsys):
    said, _ = talk(monkeypatch, "go\n", "on\n", answers=("stop", "two"))
    assert said == [("user", "go"), ("assistant", "stop"), ("user", "on"), ("assistant", "two")]
    assert "(stopped)" in capsys.readouterr().err


def test_ctrl_c_ends_a_session_that_nobody_sits_at(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        talk(monkeypatch, "go\n", "on\n", answers=("stop", "two"), terminal=False)


def test_bytes_that_are_no_text_cost_one_turn(monkeypatch, capsys):
    said, _ = talk(monkeypatch, "hi\udcff\n", "hi\r\n")
    assert said == [("user", "hi"), ("assistant", "one")]
    assert "not UTF-8: character 2" in capsys.readouterr().err


def test_a_closed_stdin_is_the_end_of_the_conversation(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert Turns(None).read() is None


def test_undo_and_retry_replace_the_last_turn(monkeypatch):
    said, model = talk(monkeypatch, "a\n", "b\n", "/undo\n", "/retry\n", seed=5)
    assert said == [("user", "a"), ("assistant", "three")]
    assert model.seeds == [5, 5, 6]


def test_undo_and_retry_of_nothing_say_so(monkeypatch, capsys):
    said, _ = talk(monkeypatch, "/undo\n", "/retry\n")
    assert said == []
    shown = capsys.readouterr().err
    assert "nothing to undo" in shown
    assert "nothing to retry" in shown


def test_system_replaces_the_instruction_and_keeps_the_turns(monkeypatch, capsys):
    said, _ = talk(monkeypatch, "a\n", "/system Rhyme always.\n", "/system\n")
    assert said == [("user", "a"), ("assistant", "one")]
    assert capsys.readouterr().err.count("Rhyme always.") == 2


def test_save_writes_json_lines_and_overwrites_only_what_it_wrote(monkeypatch, tmp_path, capsys):
    new, old = tmp_path / "a b.jsonl", tmp_path / "old"
    old.write_text("precious")
    talk(
        monkeypatch, "ä\n", f"/save {new}\n", "b\n", f"/save {new}\n", f"/save {old}\n",
        f"/save {tmp_path / 'no' / 'folder'}\n", "/save\n",
    )  # fmt: skip
    rows = [json.loads(line) for line in new.read_text().splitlines()]
    assert [row["content"] for row in rows] == ["Be brief.", "ä", "one", "b", "two"]
    assert [row["role"] for row in rows[:3]] == ["system", "user", "assistant"]
    assert old.read_text() == "precious"
    shown = capsys.readouterr().err
    assert "exists already" in shown
    assert "could not be written" in shown
    assert "needs a file" in shown


def test_an_unknown_command_names_the_one_that_was_meant(monkeypatch, capsys):
    said, _ = talk(monkeypatch, "/claer\n", "/undo it\n", "/HELP\n", "/quit\n", "never said\n")
    assert said == []
    shown = capsys.readouterr().err
    assert "no command `/claer`, did you mean `/clear`?" in shown
    assert "`/undo` takes nothing behind it" in shown
    assert "/save FILE" in shown


class Terminal:
    """The verb at the inside of a pseudo-terminal."""

    def __init__(self, folder, state, *options):
        self.outside, inside = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder), *GREEDY, *options],
            stdin=inside, stdout=inside, stderr=inside, start_new_session=True,
            env={**os.environ, "XDG_STATE_HOME": str(state), "TERM": "dumb"},
        )  # fmt: skip
        os.close(inside)
        self.unread = b""

    def write(self, text):
        os.write(self.outside, text)

    def read_until(self, text):
        while text not in self.unread:
            ready = select.select([self.outside], [], [], 50)[0]
            assert ready, f"{text!r} never came after {self.unread[-2000:]!r}"
            self.unread += os.read(self.outside, 65536)
        before, _, self.unread = self.unread.partition(text)
        return before

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.outside)


def test_in_a_terminal_ctrl_c_stops_the_answer_ctrl_d_leaves_and_lines_come_back(folder, tmp_path):
    terminal = Terminal(folder, tmp_path, "--max-tokens", "90000")
    try:
        terminal.read_until(b"\n> ")
        terminal.write(b"the quick\n")
        terminal.read_until(b"the quick\r\n")
        terminal.read_until(b" ")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until(b"(stopped)")
        terminal.read_until(b"> ")
        terminal.write(b"\x04")
        assert terminal.process.wait(timeout=50) == 0
    finally:
        terminal.close()
    (kept,) = (tmp_path / "criadero").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line) for line in kept.read_text().splitlines()] == ["the quick"]

    terminal = Terminal(folder, tmp_path, "--max-tokens", "2")
    try:
        terminal.read_until(b"\n> ")
        terminal.write(b"\x10\x01now \n")  # Ctrl-P is the arrow up, Ctrl-A the start of the line
        terminal.read_until(b"(cut off after 2 tokens)")
        terminal.read_until(b"> ")
        terminal.write(b"\x04")
        assert terminal.process.wait(timeout=50) == 0
    finally:
        terminal.close()
    assert json.loads(kept.read_text().splitlines()[-1]) == "now the quick"
