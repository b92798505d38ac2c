"""What a crawl is read from: archives, folders, URLs and a crawl's own list of paths."""

from __future__ import annotations

import gzip

import pytest

from criadero.corpus.sources.commoncrawl.inputs import splits
from criadero.errors import DataError

BASE = "https://data.example.org/"


def found(*inputs, downloads=None):
    return [(s.name, s.path) for s in splits(inputs, base=BASE, downloads=downloads)]


def test_folders_give_their_archives_in_order_of_name(tmp_path):
    folder = tmp_path / "crawl"
    (folder / "b").mkdir(parents=True)
    for name in ("z.warc.gz", "b/a.warc.wet.gz", "a.warc", "notes.txt", ".hidden.warc", "c.wet.zst"):
        (folder / name).touch()
    names = ["crawl/a.warc", "crawl/b/a.warc.wet.gz", "crawl/c.wet.zst", "crawl/z.warc.gz"]
    assert [name for name, _ in found(folder)] == names
    assert found(str(folder / "a.warc")) == [("a.warc", str(folder / "a.warc"))]


def test_order_of_inputs_does_not_matter(tmp_path):
    for name in ("a.warc", "b.warc"):
        (tmp_path / name).touch()
    paths = [tmp_path / "a.warc", tmp_path / "b.warc"]
    assert found(*paths) == found(*reversed(paths))


def test_a_list_of_paths_is_read_below_its_base(tmp_path):
    lines = ["crawl-data/CC-MAIN-2022-21/segments/1/wet/b.warc.wet.gz", "crawl-data/a.warc.wet.gz"]
    path = tmp_path / "wet.paths.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    expected = [(line, BASE + line) for line in sorted(lines)]
    assert found(path, downloads=tmp_path) == expected


@pytest.mark.parametrize(
    "line", ["https://elsewhere.org/x", "/etc/passwd", "../x", "a/../../x", "file:///etc/passwd"]
)
def test_a_list_leads_nowhere_but_below_its_base(tmp_path, line):
    path = tmp_path / "wet.paths"
    path.write_text(line)
    with pytest.raises(DataError, match="no path below the base"):
        found(path, downloads=tmp_path)


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "cut.paths.gz").write_bytes(gzip.compress(b"a" * 100)[:-5])
    for given, words in [
        (tmp_path / "none.warc", "does not exist"),
        (tmp_path / "notes.txt", "no crawl archive"),
        (tmp_path / "cut.paths.gz", "no readable list"),
        (tmp_path, "no crawl archive to read"),
    ]:
        with pytest.raises(DataError, match=words):
            found(given, downloads=tmp_path)
    with pytest.raises(DataError, match="nowhere to"):
        found("https://h/x.warc.gz")


def test_two_archives_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.warc").touch()
    with pytest.raises(DataError, match="the same ids"):
        found(tmp_path / "a" / "x.warc", tmp_path / "b" / "x.warc")
    assert len(found(tmp_path / "a", tmp_path / "b")) == 2
