"""Dumps in parts: whatever way a dump is cut, the same pages come out, and damage costs what it hit."""

from __future__ import annotations

import bz2
import tracemalloc
from pathlib import Path

import pytest

from corpus.sources.wikipedia.exports import HEAD, TAIL, page, write_multistream, write_plain
from criadero.corpus.sources.wikipedia import dump
from criadero.corpus.sources.wikipedia.pages import parse_page
from criadero.errors import DataError


def _read(path: Path, parts: list[dump.Part]) -> tuple[list[str], list[dump.Damage]]:
    found = [found for part in parts for found in dump.read_part(path, part)]
    pages = [parse_page(f[1].xml).id for f in found if not isinstance(f, dump.Damage) and not f[1].fault]
    return pages, [f for f in found if isinstance(f, dump.Damage)]


def _streams(count: int) -> list[str]:
    return ["".join(page(100 * n + k, f"text {n} {k}") for k in range(3)) for n in range(count)]


IDS = [str(100 * n + k) for n in range(6) for k in range(3)]


def test_multistream_parts_hold_every_page_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dewiki-pages-articles-multistream.xml.bz2"
    offsets = write_multistream(path, *_streams(6))
    assert dump.stream_starts(path) == offsets
    whole = dump.plan(path)
    assert len(whole) == 1
    monkeypatch.setattr(dump, "PART_BYTES", 500)
    parts = dump.plan(path)
    assert len(parts) > 2
    assert {part.start for part in parts} <= set(offsets)
    assert _read(path, parts) == _read(path, whole) == (IDS, [])


def test_the_index_beside_a_multistream_dump_is_used(tmp_path: Path) -> None:
    path = tmp_path / "dewiki-20230320-pages-articles-multistream1.xml-p1p99.bz2"
    offsets = write_multistream(path, *_streams(3))
    index = tmp_path / "dewiki-20230320-pages-articles-multistream-index1.txt-p1p99.bz2"
    index.write_bytes(bz2.compress("".join(f"{at}:1:A: B\n{at}:2:C\n" for at in offsets[1:3]).encode()))
    assert dump.stream_starts(path) == [0, *offsets[1:3]]
    assert _read(path, dump.plan(path)) == (IDS[:9], [])


def test_a_plain_dump_is_shared_out_by_page_number(tmp_path: Path) -> None:
    path = write_plain(tmp_path / "dewiki-pages-articles.xml.bz2", *_streams(6))
    assert dump.plan(path) == [dump.Part(page=0, pages_modulo=1)]
    parts = [dump.Part(page=n, pages_modulo=4) for n in range(4)]
    pages, damage = _read(path, parts)
    assert sorted(pages, key=int) == IDS
    assert pages[:5] == IDS[::4]
    assert damage == []


def test_streams_cut_anywhere_by_other_tools_are_read_as_one(tmp_path: Path) -> None:
    path = tmp_path / "parallel.xml.bz2"
    export = (HEAD + "".join(_streams(6)) + TAIL).encode()
    path.write_bytes(b"".join(bz2.compress(export[at : at + 700]) for at in range(0, len(export), 700)))
    assert len(dump.stream_starts(path)) > 3
    assert [part.stop for part in dump.plan(path)] == [None]
    assert _read(path, dump.plan(path)) == (IDS, [])


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_dump_keeps_what_came_before(tmp_path: Path, share: float) -> None:
    plain = write_plain(tmp_path / "plain.xml.bz2", *_streams(6))
    plain.write_bytes(plain.read_bytes()[: int(share * plain.stat().st_size)])
    pages, damage = _read(plain, [dump.Part()])
    assert pages == IDS[: len(pages)]
    assert [d.reason for d in damage] == ["truncated"]
    several = tmp_path / "several.xml.bz2"
    write_multistream(several, *_streams(6))
    data = several.read_bytes()
    several.write_bytes(data[: int(share * len(data))])
    pages, damage = _read(several, dump.plan(several))
    assert pages == IDS[: len(pages)]
    assert [d.reason for d in damage] == ["truncated"]
    assert len(pages) >= 18 * share - 5


def test_a_damaged_stream_costs_that_stream(tmp_path: Path) -> None:
    path = tmp_path / "several.xml.bz2"
    offsets = write_multistream(path, *_streams(6))
    data = bytearray(path.read_bytes())
    data[offsets[3] + 60] ^= 0xFF
    path.write_bytes(data)
    pages, damage = _read(path, dump.plan(path))
    assert pages == [n for n in IDS if n[0] != "2" or len(n) < 3]
    assert [(d.reason, d.where) for d in damage] == [("damaged", f"several.xml.bz2@{offsets[3]}")]


def test_a_bad_page_of_a_stream_costs_that_page(tmp_path: Path) -> None:
    path = tmp_path / "several.xml.bz2"
    bad = page(7, "x").replace("</title>", "")
    write_multistream(path, page(1, "a") + bad + page(2, "b"), page(3, "c"))
    ids = []
    for found in dump.read_part(path, dump.plan(path)[0]):
        assert not isinstance(found, dump.Damage)
        try:
            ids.append(parse_page(found[1].xml).id)
        except ValueError:
            ids.append("bad")
    assert ids == ["1", "bad", "2", "3"]


def test_the_head_gives_language_and_namespaces(tmp_path: Path) -> None:
    site = dump.site_of(write_plain(tmp_path / "a.xml.bz2", page(1, "x")))
    assert site == dump.Site("de", {-2: "Medium", 6: "Datei", 14: "Schublade"})
    (tmp_path / "utf16.xml").write_bytes((HEAD + page(1, "x") + TAIL).encode("utf-16"))
    assert dump.site_of(tmp_path / "utf16.xml") == site
    assert _read(tmp_path / "utf16.xml", [dump.Part()]) == (["1"], [])
    (tmp_path / "b.xml").write_text('<mediawiki xml:lang="ca"><page>')
    assert dump.site_of(tmp_path / "b.xml").language == "ca"


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<feed>")
    with pytest.raises(DataError, match="no dump"):
        dump.site_of(tmp_path / "a.xml")
    (tmp_path / "b.xml.bz2").write_text("not bz2")
    with pytest.raises(DataError, match="cannot be read"):
        dump.site_of(tmp_path / "b.xml.bz2")


def test_a_bz2_bomb_is_read_in_small_pieces(tmp_path: Path) -> None:
    path = tmp_path / "bomb.xml.bz2"
    path.write_bytes(bz2.compress(b"<mediawiki>" + bytes(50_000_000) + page(1, "a").encode()))
    assert path.stat().st_size < 10_000
    tracemalloc.start()
    read = _read(path, [dump.Part()])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == (["1"], [])
    assert peak_bytes < 10_000_000
