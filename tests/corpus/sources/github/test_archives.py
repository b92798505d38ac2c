"""Archives, real and hostile: nothing is written, each fault costs one member and is named."""

import gzip
import io
import resource
import stat
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import BadRecord
from criadero.corpus.sources.github.archives import Limits, members


class Kind(bytes):
    """The type of a tar member."""


LIMITS = Limits(file_bytes=1 << 20, members=1000, ratio=200)


def read(path, limits=LIMITS):
    """Return contents by path, and the reasons of bad records by id."""
    found = list(members(path, "arc", lambda _: True, limits=limits))
    bad = {r.id: r.reason for r in found if isinstance(r, BadRecord)}
    return {m.path: m.data for m in found if not isinstance(m, BadRecord)}, bad


def tar(path, entries, mode="w"):
    """Write an archive of (name, content) pairs, of links and devices where the content is a `Kind`."""
    with tarfile.open(path, mode) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            if isinstance(content, Kind):
                info.type, info.linkname = content, "../../etc/passwd"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


HOSTILE = ["../out.py", "/abs.py", "a/../../out.py", "..\\out.py", "C:\\out.py", "C:/out.py", "..", "a/.."]


def everything_below(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_hostile_tar_members_are_refused_and_nothing_is_written(tmp_path):
    links = [
        ("link", Kind(tarfile.SYMTYPE)),
        ("hard", Kind(tarfile.LNKTYPE)),
        ("dev", Kind(tarfile.CHRTYPE)),
        ("fifo", Kind(tarfile.FIFOTYPE)),
    ]
    entries = [
        ("good.py", b"a = 1\n"),
        *((name, b"evil") for name in HOSTILE),
        *links,
        ("last.py", b"b = 2\n"),
    ]
    (tmp_path / "inside").mkdir()
    path = tar(tmp_path / "inside" / "a.tar", entries)
    before = everything_below(tmp_path)
    good, bad = read(path)
    assert everything_below(tmp_path) == before
    assert good == {"good.py": b"a = 1\n", "last.py": b"b = 2\n"}
    assert [bad[f"arc:{name}"] for name in HOSTILE] == ["outside_archive"] * len(HOSTILE)
    assert [bad[f"arc:{name}"] for name, _ in links] == ["no_file"] * 4


def test_hostile_zip_members_are_refused_and_nothing_is_written(tmp_path):
    entries = [("good.py", b"a = 1\n", 0o644), *((name, b"evil", 0o644) for name in HOSTILE)]
    entries += [("link", b"/etc/passwd", stat.S_IFLNK | 0o777), ("dev", b"", stat.S_IFCHR | 0o600)]
    (tmp_path / "inside").mkdir()
    path = zipped(tmp_path / "inside" / "a.zip", entries)
    before = everything_below(tmp_path)
    good, bad = read(path)
    assert everything_below(tmp_path) == before
    assert good == {"good.py": b"a = 1\n"}
    assert set(bad.values()) == {"outside_archive", "no_file"}
    assert len(bad) == len(HOSTILE) + 2


def test_links_in_a_folder_are_refused(tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "repo" / ".git").mkdir(parents=True)
    (tmp_path / "repo" / ".git" / "config").write_text("x")
    (tmp_path / "repo" / "a.py").write_text("a = 1\n")
    (tmp_path / "repo" / "b.py").symlink_to(tmp_path / "secret")
    (tmp_path / "repo" / "c").symlink_to(tmp_path, target_is_directory=True)
    good, bad = read(tmp_path / "repo")
    assert good == {"a.py": b"a = 1\n"}
    assert bad == {"arc:b.py": "no_file"}


def test_a_member_over_the_cap_costs_itself(tmp_path):
    limits = Limits(file_bytes=100, members=10, ratio=200)
    good, bad = read(
        tar(tmp_path / "a.tar.gz", [("big.py", b"x" * 101), ("a.py", b"x" * 100)], "w:gz"), limits
    )
    assert (list(good), bad) == (["a.py"], {"arc:big.py": "too_large"})
    path = zipped(tmp_path / "a.zip", [("big.py", b"x" * 101, 0o644), ("a.py", b"x" * 100, 0o644)])
    good, bad = read(path, limits)
    assert (list(good), bad) == (["a.py"], {"arc:big.py": "too_large"})


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz", "a.zip", "folder"])
def test_too_many_members_end_the_reading(tmp_path, kind):
    names = [f"{number:02}.py" for number in range(20)]
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
        for name in names:
            (path / name).write_text("x")
    elif kind == "a.zip":
        zipped(path, [(name, b"x", 0o644) for name in names])
    else:
        tar(path, [(name, b"x") for name in names], "w:gz" if kind.endswith("gz") else "w")
    good, bad = read(path, Limits(file_bytes=100, members=5, ratio=200))
    assert (list(good), bad) == (names[:5], {"arc": "too_many_members"})


def test_a_bomb_is_left_early_and_memory_stays_flat(tmp_path):
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        info = tarfile.TarInfo("first.py")
        info.size = 5
        stream.write(info.tobuf() + b"a = 1".ljust(512, b"\0"))
        info = tarfile.TarInfo("zeros.py")
        info.size = 600 << 20
        stream.write(info.tobuf())
        for _ in range(600):
            stream.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    good, bad = read(path, Limits(file_bytes=1 << 20, members=10, ratio=20))
    assert list(good) == ["first.py"]
    assert bad == {"arc:zeros.py": "too_large", "arc": "compression_ratio"}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 4 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1 << 16))
    assert read(tmp_path / "a.tar") == ({}, {"arc": "bad_archive"})


@pytest.mark.parametrize("kind", ["a.tar", "a.tar.gz"])
def test_a_cut_tar_gives_what_came_before_and_says_that_it_is_cut(tmp_path, kind):
    path = tar(
        tmp_path / kind, [(f"{n}.py", b"%06d" % n * 200) for n in range(20)], "w:gz" if "gz" in kind else "w"
    )
    whole = path.read_bytes()
    for cut in (len(whole) // 3, len(whole) // 2, 3 * len(whole) // 4):
        path.write_bytes(whole[:cut])
        good, bad = read(path)
        assert bad == {"arc": "bad_archive"}
        assert all(data == b"%06d" % int(name[:-3]) * 200 for name, data in good.items())


def test_a_damaged_tar_header_is_not_taken_for_the_end(tmp_path):
    path = tar(tmp_path / "a.tar", [("a.py", b"a"), ("b.py", b"b")])
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 0xFF  # checksum of the second header
    path.write_bytes(data)
    good, bad = read(path)
    assert (list(good), bad) == (["a.py"], {"arc": "bad_archive"})


def test_a_damaged_zip_member_costs_itself(tmp_path):
    path = zipped(tmp_path / "a.zip", [("a.py", b"one" * 500, 0o644), ("b.py", b"two" * 500, 0o644)])
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    good, bad = read(path)
    assert (list(good), bad) == (["b.py"], {"arc:a.py": "bad_member"})


def test_a_name_that_comes_twice_counts_once(tmp_path):
    good, bad = read(tar(tmp_path / "a.tar", [("a.py", b"one"), ("a.py", b"two")]))
    assert (good, bad) == ({"a.py": b"one"}, {"arc:a.py": "duplicate_path"})


@settings(max_examples=150)
@given(st.binary(max_size=2000), st.sampled_from([".tar", ".tar.gz", ".zip"]), st.integers(0, 3000))
def test_no_bytes_break_the_reader(tmp_path_factory, noise, suffix, at):
    folder = tmp_path_factory.mktemp("noise")
    if suffix == ".zip":
        path = zipped(folder / "a.zip", [("a.py", b"one" * 100, 0o644), ("b.py", b"two", 0o644)])
    else:
        path = tar(
            folder / f"a{suffix}",
            [("a.py", b"one" * 100), ("b.py", b"two")],
            "w:gz" if "gz" in suffix else "w",
        )
    data = path.read_bytes()
    path.write_bytes(data[:at] + noise + data[at + len(noise) :])
    good, bad = read(path)
    assert len(good) + len(bad) <= 20
    path.write_bytes(noise)
    read(path)
