"""The shell's Tab key finds verbs, options and values in a moment; paths are left to the shell."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

TOO_SLOW_SECONDS = 0.3


def ask(shell: str, words: str) -> list[str]:
    """What the program answers the completion script of a shell, the last word being incomplete."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.argv = ['criadero']\nfrom criadero.cli.app import main\nmain()",
    ]
    environment = {
        **os.environ,
        "_CRIADERO_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("criadero gen", "generate"),
        ("criadero ch", "chat"),
        ("criadero generate m --temp", "--temperature"),
        ("criadero chat m --no-h", "--no-history"),
        ("criadero generate m --dtype bf", "bfloat16"),
        ("criadero corpus bu", "build"),
    ],
)
def test_bash_completes_verbs_options_and_values(words: str, found: str) -> None:
    assert ask("bash", words) == [found]


def test_zsh_and_fish_get_the_help_beside_each_option() -> None:
    for shell in ("zsh", "fish"):
        (line,) = (line for line in ask(shell, "criadero chat m --no-h") if "--no-history" in line)
        assert "lines typed in" in line


def test_a_model_is_left_to_the_shell_which_knows_paths() -> None:
    assert ask("bash", "criadero chat mo") == [""]
    assert ask("zsh", "criadero chat mo") == ["_files"]


def test_the_tab_key_waits_for_less_than_a_third_of_a_second() -> None:
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ask("bash", "criadero generate m --te")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(3)) < TOO_SLOW_SECONDS


def test_bash_completes_with_the_script_that_is_shown(tmp_path: Path) -> None:
    """What `--show-completion` prints, in a real bash: verbs from the program, files from bash."""
    program = tmp_path / "criadero"
    program.write_text(f"#!{sys.executable}\nfrom criadero.cli.app import main\nmain()\n")
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }

    def output(*command: str) -> str:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return done.stdout

    script = output(str(program), "--show-completion", "bash")
    assert "complete -o default -F _criadero_completion criadero" in script, "bash knows files by itself"
    for words, found in (("doct", "doctor"), ("chat mod", "")):
        asked = (
            f"COMP_WORDS=(criadero {words}); COMP_CWORD={len(words.split())}; _criadero_completion criadero"
        )
        assert output("bash", "-c", f'{script}\n{asked}\necho "${{COMPREPLY[@]}}"') == f"{found}\n"
