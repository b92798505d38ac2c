"""The verb prints the continuation and nothing else; the numbers go elsewhere."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import typer
from typer.testing import CliRunner

from criadero.cli import generate as generate_module
from criadero.cli.generate import generate
from criadero.cli.output import print_text
from criadero.errors import ConfigError, DataError, FormatError, ResourceError, TokenizerError, UsageError
from criadero.generate.sampling import SamplingConfig
from generate.saved_model import save_random_model

PROMPT = "the quick brown"
GREEDY = ["--max-tokens", "24", "--temperature", "0", "--device", "cpu"]

app = typer.Typer()
app.command()(generate)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    return folder, *save_random_model(folder)


def run(folder, *arguments, **options):
    result = CliRunner().invoke(app, [str(folder), *arguments], **options)
    if result.exception is not None:
        raise result.exception
    return result


def test_greedy_ids_are_those_of_transformers(saved):
    folder, model, tokenizer = saved
    ids = tokenizer.encode(PROMPT, bos=True)
    with torch.inference_mode():
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids)),
            max_new_tokens=24,
            do_sample=False,
            pad_token_id=0,
        )
    values = json.loads(run(folder, PROMPT, *GREEDY, "--json").stdout)
    assert values["ids"] == out[0, len(ids) :].tolist()
    assert values["prompt_tokens"] == len(ids)
    assert values["completion_tokens"] == len(values["ids"])
    assert tokenizer.decode(ids + values["ids"]) == PROMPT + values["text"]


def test_stdout_holds_only_the_continuation(saved):
    folder, _, _ = saved
    expected = json.loads(run(folder, PROMPT, *GREEDY, "--json").stdout)["text"]
    result = run(folder, PROMPT, *GREEDY)
    assert result.stdout == expected + "\n"
    assert result.stderr == ""


def test_statistics_go_to_stderr_when_asked_for(saved):
    folder, _, _ = saved
    result = run(folder, PROMPT, *GREEDY, "--verbose")
    assert "tokens/s" in result.stderr
    assert "tokens/s" not in result.stdout


def test_a_dash_reads_the_prompt_from_stdin(saved):
    folder, _, _ = saved
    assert run(folder, "-", *GREEDY, input=PROMPT + "\n").stdout == run(folder, PROMPT, *GREEDY).stdout


def test_without_a_prompt_a_pipe_is_read_byte_for_byte(saved):
    folder, _, tokenizer = saved
    text = " the\r\nfox ü"
    values = json.loads(run(folder, *GREEDY, "--json", input=f"{text}\n".encode()).stdout)
    assert values == {**values, "prompt_tokens": len(tokenizer.encode(text, bos=True))}
    same = json.loads(run(folder, text, *GREEDY, "--json").stdout)
    assert values["ids"] == same["ids"]
    assert (
        json.loads(run(folder, *GREEDY, "--json", input=f"{text}\r\n".encode()).stdout)["ids"] == same["ids"]
    )


def test_without_a_prompt_a_terminal_is_not_waited_for():
    with pytest.raises(UsageError, match="no PROMPT"):
        generate_module._prompt_text(None, SimpleNamespace(isatty=lambda: True))
    with pytest.raises(UsageError, match="no PROMPT"):
        generate_module._prompt_text("-", None)


def test_a_prompt_that_is_not_utf_8_is_an_error(saved):
    with pytest.raises(DataError, match="stdin is not UTF-8: character 3 "):
        run(saved[0], "-", *GREEDY, input=b"abc\xff")
    with pytest.raises(DataError, match="PROMPT is not UTF-8: character 2 "):
        run(saved[0], "ü \udcff", *GREEDY)


def test_the_continuation_is_utf_8_whatever_the_locale_says(saved):
    folder, _, _ = saved
    expected = run(folder, "öl – über", *GREEDY).stdout
    assert not expected.isascii()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = start(folder, "öl – über", *GREEDY, env=environment)
    out, _ = done.communicate(timeout=50)
    assert out.decode() == expected


def test_no_control_character_reaches_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    print_text("a\x1b[2Jb\tc\r\nd\x9b")
    assert capsys.readouterr().out == "a\ufffd[2Jb\tc\ufffd\nd\ufffd"


def test_closed_streams_are_said(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="stdout is closed"):
        print_text("a")


def start(folder, *arguments, **options):
    command = [sys.executable, "-m", "criadero", "generate", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long") / "model"
    save_random_model(folder, context=100_000)
    return folder


def test_ctrl_c_ends_with_130_and_what_was_written(long_folder):
    process = start(long_folder, PROMPT, "--max-tokens", "90000", "--temperature", "0", "--device", "cpu")
    try:
        first = os.read(process.stdout.fileno(), 1)
        process.send_signal(signal.SIGINT)
        rest, problem = process.communicate(timeout=50)
        assert process.returncode == 130
        assert (first + rest).decode().strip()
        assert problem == b""
    finally:
        process.kill()
        process.wait()


def test_a_reader_that_leaves_ends_the_program_without_a_word(long_folder):
    process = start(long_folder, PROMPT, "--max-tokens", "90000", "--temperature", "0", "--device", "cpu")
    try:
        assert os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        assert process.wait(timeout=50) == 1
        with process.stderr as stream:
            assert stream.read() == b""
    finally:
        process.kill()
        process.wait()


def test_a_seed_repeats_a_sample_and_the_seed_drawn_is_told(saved):
    folder, _, _ = saved
    free = json.loads(run(folder, PROMPT, "--max-tokens", "20", "--json").stdout)
    again = json.loads(
        run(folder, PROMPT, "--max-tokens", "20", "--json", "--seed", str(free["seed"])).stdout
    )
    assert again["ids"] == free["ids"]


def test_a_stop_string_is_not_part_of_the_text(saved):
    folder, _, _ = saved
    text = run(folder, PROMPT, *GREEDY).stdout.removesuffix("\n")
    stop = text[5:8]
    values = json.loads(run(folder, PROMPT, *GREEDY, "--json", "--stop", stop).stdout)
    assert values["text"] == text[: text.index(stop)]
    assert values["finish_reason"] == "stop"


def test_all_options_out_of_bounds_are_reported_at_once_before_the_model_is_read():
    with pytest.raises(ConfigError) as problem:
        run("no-such-model", PROMPT, "--top-p", "1.5", "--min-p", "-1", "--max-tokens", "0")
    assert "3 faults" in str(problem.value)
    assert problem.value.exit_code == 2


def test_a_prompt_longer_than_the_context_is_refused_naming_both_numbers(saved):
    folder, _, tokenizer = saved
    count = len(tokenizer.encode("fox " * 100, bos=True))
    with pytest.raises(DataError, match=rf"{count} tokens.*holds 64"):
        run(folder, "fox " * 100, *GREEDY)


def test_a_model_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        run(tmp_path / "nothing", PROMPT)


def test_a_model_without_a_tokenizer_is_an_error(saved, tmp_path):
    folder, _, _ = saved
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(TokenizerError, match="no tokenizer"):
        run(tmp_path, PROMPT)


def test_a_device_that_is_not_there_is_an_error(saved):
    for device in ("cuda:77", "abacus", "meta"):
        with pytest.raises(ResourceError, match=device):
            run(saved[0], PROMPT, "--device", device)


def test_the_help_states_the_real_defaults():
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
    defaults = SamplingConfig()
    assert f"Default: {defaults.max_tokens}." in text
    assert f"Default: {defaults.temperature}." in text
