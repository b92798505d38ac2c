"""Errors are one message and a hint with the promised exit code; results alone are on stdout."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import criadero
from criadero import errors
from criadero.cli import app
from criadero.errors import ConfigError, CriaderoError

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_packages(program):
    outcome = program("--version")
    assert (outcome.code, outcome.stdout) == (0, f"criadero {criadero.__version__}\n")


def test_an_unknown_verb_is_a_usage_error(program):
    outcome = program("trian")
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert "trian" in outcome.stderr


def test_without_a_verb_the_verbs_are_listed(program):
    outcome = program()
    for verb in ("train", "generate", "chat", "import", "runs", "demo", "doctor", "tokenizer", "shards"):
        assert verb in outcome.stdout + outcome.stderr


def test_a_config_fault_is_one_message_without_traceback(program, tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_text("[trian]\ntokens = 5\n")
    outcome = program("train", path)
    assert outcome.code == 2
    assert outcome.stdout == ""
    assert outcome.stderr.startswith(f"error: {path} has 5 faults:\n")
    assert "unknown key `trian`, did you mean `train`?" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_missing_file_ends_with_a_hint(program, tmp_path: Path):
    outcome = program("train", tmp_path / "nothing.toml")
    assert outcome.code == 2
    assert outcome.stderr.splitlines()[-1].startswith("hint: ")


def test_debug_shows_the_traceback(program, tmp_path: Path):
    with pytest.raises(ConfigError, match="does not exist"):
        program("--debug", "train", tmp_path / "nothing.toml")


@pytest.mark.parametrize(("options", "shown"), [([], False), (["--debug"], True)])
def test_only_debug_shows_a_traceback_on_the_command_line(tmp_path: Path, options: list[str], shown: bool):
    command = [sys.executable, "-m", "criadero", *options, "runs", str(tmp_path / "nothing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert ("Traceback" in done.stderr) is shown
    assert "nothing` does not exist" in done.stderr


@pytest.mark.parametrize(
    "kind", [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CriaderoError)]
)
def test_every_error_ends_the_program_with_its_exit_code(kind, program, monkeypatch):
    def fail() -> None:
        raise kind("it went wrong", hint="try again")

    monkeypatch.setattr(app, "app", fail)
    outcome = program("x")
    assert (outcome.code, outcome.stdout) == (kind.exit_code, "")
    mark = "" if kind is errors.StoppedEarly else "error: "
    assert outcome.stderr == f"{mark}it went wrong\nhint: try again\n"


def test_a_reader_that_leaves_early_is_no_fault_worth_a_traceback(tmp_path: Path):
    """`criadero ... | head -0`: the pipe is closed before anything is written."""
    command = f"{sys.executable} -m criadero runs {tmp_path} --json | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_no_color_is_honoured_where_colour_would_be_shown(tmp_path: Path):
    """A forced terminal, so that only NO_COLOR keeps colours away."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "status.json").write_text('{"state": "finished", "step": 1}')
    colour = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38)(?:;\d+)*m")
    found = {}
    for name, extra in (("colour", {}), ("plain", {"NO_COLOR": "1"})):
        environment = {"PATH": "/usr/bin:/bin", "FORCE_COLOR": "1", "TERM": "xterm-256color", **extra}
        command = [sys.executable, "-m", "criadero", "runs", "--help"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[name] = bool(colour.search(done.stdout))
    assert found == {"colour": True, "plain": False}


def test_a_full_disk_under_stdout_is_one_line_and_exit_1():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "criadero", "doctor", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["corpus", "build", "samples/recipe.toml", "OUT"],
        ["benchmarks", "overlap", "OUT", "--benchmarks", "OUT"],
        ["demo"],
    ],
    ids=" ".join,
)
def test_without_the_corpus_extra_a_verb_says_what_to_install(arguments, tmp_path: Path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(('pyarrow', 'duckdb', 'ray', 'fastwarc')))"
    script = f"{blocked}; sys.argv = {['criadero', *arguments]!r}; from criadero.cli.app import main; main()"
    (tmp_path / "OUT" / "ledger").mkdir(parents=True)
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "which is not installed" in done.stderr
    assert "hint: pip install 'criadero[corpus]'" in done.stderr
    assert "Traceback" not in done.stderr
