"""The verb prints the continuation and nothing else; the numbers go elsewhere."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from criadero.cli.generate import generate
from criadero.errors import ConfigError, DataError, FormatError, ResourceError, TokenizerError
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
