"""Commands and examples written in the documentation, taken out of it and run as they stand, at toy size.

`Place.make` builds a folder like a checkout after `make demo`, with toy models under the documented names.
What is replaced in a command is in REPLACED, nothing else: a vocabulary that a toy text fills, settings
behind configs/laptop.toml that make its run last a second, a recipe with sources of the samples' names, and
the smallest of what can be fetched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from gguf.constants import GGMLQuantizationType
from typer.testing import CliRunner

from criadero.cli.app import app
from foreign_models import random_llama, write_gguf, write_meta
from tiny_run import TinyRun, _sentences

ROOT = Path(__file__).parent.parent
TOY_RUN = (
    "model.vocab_size=300 model.dim=32 model.num_layers=2 model.num_heads=4 model.max_seq_len=64 "
    "data.seq_len=32 train.batch_tokens=256 train.micro_batch_sequences=2 schedule.warmup_steps=2 "
    "heldout.tokens=200 checkpoint.every_steps=2"
)
REPLACED = {
    "--vocab-size 16000": "--vocab-size 300",
    "configs/laptop.toml": f"configs/laptop.toml {TOY_RUN} train.tokens=1024",
    "corpus build samples/recipe.toml data/corpus": "corpus build toy.toml data/corpus --workers 0",
    "benchmarks fetch --out": "benchmarks fetch humaneval --out",
    "--suite common-sense": "--suite crows_pairs --limit 20",
    "samples fetch --out": "samples fetch conversations --out",
    # A larger budget, which a finished run is extended to.
    "train.tokens=200_015_872": "train.tokens=1536",
}
EXPLAINED = "en:12"  # a page of samples/raw/wikipedia
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of one language, in order."""
    return [text for name, text in _BLOCK.findall(document.read_text()) if name == language]


def commands(document: Path) -> list[str]:
    """The lines of all `sh` blocks, continued lines joined, comments left out."""
    joined = "".join(blocks(document, "sh")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def needs_network(command: str) -> bool:
    return " fetch " in command or command.startswith("criadero evaluate")


def at_toy_size(command: str) -> str:
    for written, toy in REPLACED.items():
        command = command.replace(written, toy)
    return command


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Place:
    """A folder in which documented commands find what they name."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, tiny: TinyRun) -> Place:
        for name in ("configs", "samples"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        # Where tests keep the packages they fetch.
        (ROOT / ".cache").mkdir(exist_ok=True)
        (folder / ".cache").symlink_to(ROOT / ".cache")
        write_texts(folder / "my-texts")
        write_recipe(folder)
        write_foreign_models(folder / "weights")
        config = tiny.config(folder / "demo", steps=3)
        (folder / "runs").mkdir()
        arguments = ["train", str(config), f"run.folder={folder}/runs/demo"]
        assert CliRunner().invoke(app, arguments).exit_code == 0
        return cls(folder)

    def run(self, command: str, *, stdin: str = "") -> Done:
        """Run a command in the folder: bash does it, or for a plain `criadero VERB ...` this process.

        A verb in this process spares the two seconds in which torch is loaded.
        """
        command = at_toy_size(command)
        words = shlex.split(command)
        if words[0] == "criadero" and "|" not in words:
            with contextlib.chdir(self.folder):
                result = CliRunner().invoke(app, words[1:], input=stdin)
            return Done(result.exit_code, result.stdout, f"{result.stderr}{result.exception or ''}")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def run_python(self, source: str) -> Done:
        return self.run(f"{shlex.quote(sys.executable)} -c {shlex.quote(source)}")


def write_texts(folder: Path) -> None:
    folder.mkdir()
    for number, sentence in enumerate(_sentences(200)):
        (folder / f"{number:03}.txt").write_text(f"{sentence} {sentence}\n")


def write_recipe(folder: Path) -> None:
    """Write a recipe with the two sources of the samples that are named, and a page with the id that is."""
    page = {"id": EXPLAINED, "text": "The mill turns slowly. " * 9}
    (folder / "page.jsonl").write_text(json.dumps(page))
    sources = {"wikipedia": "page.jsonl", "books": "my-texts"}
    tables = [f'[sources.{name}]\nkind = "text"\ninputs = ["{path}"]\n' for name, path in sources.items()]
    (folder / "toy.toml").write_text("\n".join(tables))


def write_foreign_models(folder: Path) -> None:
    folder.mkdir()
    model = random_llama()
    model.to(torch.float32).save_pretrained(folder / "llama-7b-hf")
    write_meta(folder / "7B", model, parts=1)
    write_gguf(folder / "model.gguf", model, GGMLQuantizationType.Q8_0)
