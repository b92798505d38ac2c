"""Damages files of each kind at random, again and again, and reads them: `mutate.py FOLDER ROUNDS`.

Prints how many were refused, and how far memory grew. Anything but an error of ours ends it with a
traceback and leaves the file as FOLDER/culprit. Run as a program, because it limits its own address space.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from criadero.errors import CriaderoError
from criadero.formats.load import load_tokenizer, open_model, tokenizer_of

FREE_BYTES = 256 << 20
HEADER_BYTES = 3000
Reader = Callable[[Path], object]

chance = random.Random(7)


def mutated(original: bytes) -> bytes:
    """Return the content with a few bytes changed, inserted or left out, seldom cut off."""
    data = bytearray(original)
    # Headers are where it hurts.
    reach = len(data) if chance.random() < 0.3 else min(len(data), HEADER_BYTES)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(max(1, min(reach, len(data) - 1)))
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                data[at : at + 8] = chance.choice((bytes(8), b"\xff" * 8, b"\xff" * 7 + b"\x7f"))
            case 3:
                del data[at : at + chance.choice((1, 4, 100))]
            case 4:
                data[at:at] = data[at : at + chance.choice((1, 8, 100))]
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.05 else data)


def use_model(path: Path) -> None:
    """Read all that `load_model` reads, without the cost of building a model of it."""
    stored = open_model(path)
    tokenizer_of(stored)
    for tensor in stored.tensors.values():
        read = (
            tensor.read if tensor.read_quantized is None or chance.random() < 0.5 else tensor.read_quantized
        )
        read()


def use_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode("the hi 🦊"))


def use_folder(path: Path) -> None:
    use_model(path.parent)


def open_folder(path: Path) -> None:
    open_model(path.parent)


def kinds(work: Path) -> dict[str, tuple[list[Path], Reader]]:
    """The files of each kind, and what reads them."""
    return {
        "safetensors": ([work / "weights/model.safetensors"], use_folder),
        "config": ([work / "weights/config.json"], open_folder),
        "gguf": ([work / name for name in ("q8_0.gguf", "q4_1.gguf", "mixed.gguf")], use_model),
        "tokenizer.json": ([work / "bytes/tokenizer.json"], use_tokenizer),
        "tokenizer.model": ([work / "pieces/tokenizer.model"], use_tokenizer),
        "a folder": (sorted((work / "hf").iterdir()), use_folder),
    }


def refused(paths: list[Path], read: Reader, rounds: int) -> int:
    """Return how many of the mutations were refused; all others were read."""
    originals: dict[Path, bytes] = {}
    count = 0
    for number in range(rounds):
        path = paths[number * len(paths) // rounds]
        if path not in originals:
            for earlier, content in originals.items():
                earlier.write_bytes(content)
            originals[path] = path.read_bytes()
        path.write_bytes(mutated(originals[path]))
        try:
            read(path)
        except CriaderoError:
            count += 1
        except BaseException:
            print(f"round {number}: {path}", file=sys.stderr)
            shutil.copy(path, Path(sys.argv[1]) / "culprit")
            raise
    for earlier, content in originals.items():
        earlier.write_bytes(content)
    return count


def address_space_bytes() -> int:
    """Return what this process has mapped; libraries alone are most of a gigabyte."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> None:
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    # Ten thousand files on a disk would take longer than reading them.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as temporary:
        work = shutil.copytree(folder, Path(temporary) / "work")
        print(json.dumps(measured(kinds(work), rounds)))


def measured(files: dict[str, tuple[list[Path], Reader]], rounds: int) -> dict[str, Any]:
    """Return how many mutations of each kind were refused, and how far memory grew."""
    for paths, read in files.values():
        for path in paths:
            read(path)  # all is well before it is damaged, and all code is loaded
    limit_bytes = address_space_bytes() + FREE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {kind: refused(paths, read, rounds) for kind, (paths, read) in files.items()}
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    return {"refused": counts, "grown_bytes": 1024 * grown_kb}


main()
