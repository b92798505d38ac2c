"""Line dedup against a naive reference that holds all lines in memory."""

from __future__ import annotations

import hashlib
import json
import lzma
import random
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.config import validate
from criadero.corpus.dedup.lines import LineDedupConfig, line_hashes, make, stage
from criadero.corpus.document import Document
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read, Recipe, Split
from criadero.errors import ConfigError

SAMPLES = Path(__file__).parents[3] / "samples" / "raw" / "books"


def normal(line: str) -> str:
    """The reference's own normal form; texts of these tests have no typographic punctuation but quotes."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f“”’—…]", "", re.sub(r"\d", "0", line.lower()))


def naive(splits: list[list[Document]], scope: str, policy: str) -> dict[str, str]:
    """Text by document id after dedup, by a dictionary of all lines."""
    holders: dict[tuple[object, str], list[str]] = defaultdict(list)

    def area(number: int, document: Document) -> object:
        if scope == "all":
            return None
        return document.metadata.get("dump") if scope == "dump" else number // int(scope.split(":")[1])

    for number, documents in enumerate(splits):
        for document in documents:
            for line in dict.fromkeys(map(normal, document.text.split("\n"))):
                holders[area(number, document), line].append(document.id)
    result = {}
    for number, documents in enumerate(splits):
        for document in documents:
            kept, seen = [], {""}
            for line in document.text.split("\n"):
                key = normal(line)
                ids = holders[area(number, document), key]
                lost = len(ids) > 1 and (policy == "drop_all" or ids[0] != document.id)
                if key not in seen and not lost:
                    kept.append(line)
                seen.add(key)
            if kept:
                result[document.id] = "\n".join(kept)
    return result


def make_reader(splits: dict[str, list[tuple[str, str, dict[str, str]]]]):
    return lambda split: (Document(i, t, "crawl", m) for i, t, m in splits[split.name])


def deduplicate(splits: list[list[Document]], scope: str, policy: str) -> dict[str, str]:
    names = [str(number) for number in range(len(splits))]
    values = {n: [(d.id, d.text, dict(d.metadata)) for d in s] for n, s in zip(names, splits, strict=True)}
    read = Read(tuple(Split(n, n) for n in names), make_reader, {"splits": values})
    recipe: Recipe = (read, stage(LineDedupConfig(scope=scope, policy=policy)))
    return {document.id: document.text for document in run_inline(recipe).documents}


@cache
def real_lines() -> list[str]:
    """The lines of two real books, paragraphs cut at the ends of sentences."""
    lines: list[str] = []
    for name in ("sherlock-holmes", "state-of-the-union"):
        with lzma.open(SAMPLES / f"{name}.jsonl.xz", "rt") as stream:
            texts = [json.loads(record)["text"] for record in stream]
        parts = [line.strip() for text in texts for line in re.split(r"\n|(?<=\.) ", text)]
        lines += [line for line in parts if line]
    return lines


def real_documents(count: int, lines: list[str]) -> list[list[Document]]:
    """Pages of consecutive real lines, some twice, under menus and quotes that many of them share."""
    rng = random.Random(0)
    shared = rng.sample(lines, 200)
    length = len(lines) // count
    splits: list[list[Document]] = [[] for _ in range(8)]
    for number in range(count):
        body = lines[number * length : (number + 1) * length]
        body[rng.randrange(len(body)) : 0] = rng.sample(shared, rng.randint(0, 3))
        body += rng.sample(body, rng.randint(0, min(2, len(body)))) + [""] * rng.randint(0, 1)
        dump = {"dump": f"CC-MAIN-{number % 3}"}
        splits[number * 8 // count].append(Document(f"p{number}", "\n".join(body), "crawl", dump))
    return splits


@pytest.mark.parametrize("policy", ["drop_all", "keep_first"])
@pytest.mark.parametrize("scope", ["all", "dump", "group:1", "group:3"])
def test_real_documents_equal_the_naive_reference(scope, policy):
    splits = real_documents(2000 if scope == "dump" else 300, real_lines())
    found, expected = deduplicate(splits, scope, policy), naive(splits, scope, policy)
    assert found == expected
    assert len(found) > 0
    assert sum(map(len, found.values())) < sum(len(d.text) for s in splits for d in s)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.sampled_from("aAb1 2cd"), max_size=5), max_size=4), min_size=1, max_size=4),
    st.sampled_from(["all", "dump", "group:1", "group:2"]),
    st.sampled_from(["drop_all", "keep_first"]),
)
def test_any_small_corpus_equals_the_naive_reference(corpus, scope, policy):
    splits = [
        [Document(f"{i}.{j}", "\n".join(x.strip() for x in lines), "c") for j, lines in enumerate(documents)]
        for i, documents in enumerate(corpus)
    ]
    assert deduplicate(splits, scope, policy) == naive(splits, scope, policy)


def test_a_line_repeated_inside_one_document_is_not_shared():
    splits = [[Document("a", "x\nx\ny", "c"), Document("b", "z\nz", "c")]]
    assert deduplicate(splits, "all", "drop_all") == {"a": "x\ny", "b": "z"}


def test_drop_all_removes_a_shared_line_from_the_first_document_too():
    splits = [[Document("a", "x\nHome", "c"), Document("b", "y\nHOME", "c")]]
    assert deduplicate(splits, "all", "drop_all") == {"a": "x", "b": "y"}
    assert deduplicate(splits, "all", "keep_first") == {"a": "x\nHome", "b": "y"}


def test_a_shared_line_is_found_across_all_splits_not_only_3_percent_of_a_dump():
    """Public recreations compare a few neighbouring shards only; RedPajama each shard with itself."""
    splits = [[Document(str(i), f"own {'x' * i}\nshared", "c")] for i in range(12)]
    assert set(deduplicate(splits, "all", "drop_all").values()) == {f"own {'x' * i}" for i in range(12)}
    assert sum("shared" in t for t in deduplicate(splits, "group:1", "drop_all").values()) == 12


def test_lines_beyond_32767_are_decoded_right():
    """CCNet writes line numbers as unsigned 16-bit integers and reads them as signed ones."""
    text = "\n".join(
        "line " + "x" * (i % 7) + chr(0x4E00 + i % 20_000) + str(i // 20_000) for i in range(70_000)
    )
    letters = text.replace("0", "p").replace("1", "q").replace("2", "r").replace("3", "s")
    splits = [[Document("long", letters + "\nshared", "c"), Document("b", "shared\nother", "c")]]
    assert deduplicate(splits, "all", "drop_all") == {"long": letters, "b": "other"}


def test_a_document_of_shared_lines_only_is_dropped():
    step = make()
    document = Document("a", "x\n\ny", "c")
    dropped = step.apply(document, [{"line": 0}, {"line": 1}, {"line": 2}])
    assert (dropped.reason, dropped.score) == ("no_line_left", 3.0)


def test_hashes_are_sha1_little_endian():
    expected = int.from_bytes(hashlib.sha1(b"page 00").digest()[:8], "little")
    assert line_hashes("x\nPage 42") == [int.from_bytes(hashlib.sha1(b"x").digest()[:8], "little"), expected]


@pytest.mark.parametrize("scope", ["group:0", "group:", "dumps", "group:x"])
def test_unknown_scopes_are_refused(scope):
    with pytest.raises(ConfigError, match="scope"):
        validate(LineDedupConfig, {"scope": scope}, where="test")
