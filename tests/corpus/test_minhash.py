"""Near-duplicates: against exact Jaccard similarity, the published curve and a naive MinHash."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.dedup.cluster import first_of_cluster
from criadero.corpus.dedup.minhash import MinHash, MinHashConfig, stage
from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.engine.stage import Read, Reader, Split
from criadero.corpus.shingles import WordHashes, ngram_hashes, words
from criadero.corpus.sources import text

SAMPLES = Path(__file__).resolve().parents[2] / "samples" / "raw" / "books"


@pytest.fixture(scope="module")
def austen_pages() -> list[str]:
    chapters = islice(text.read(SAMPLES / "jane-austen.jsonl.xz"), 12)
    return [c.text[start : start + 3000] for c in chapters for start in range(0, len(c.text) - 3000, 3000)]


class InMemory:
    """The documents of one or several splits."""

    def __init__(self, splits: list[list[Document]]) -> None:
        self.splits = splits

    def read(self, places: Iterable[tuple[int, int]]) -> Iterator[tuple[tuple[int, int], Document]]:
        for split, row in places:
            yield (split, row), self.splits[split][row]


def deduplicate(*splits: list[str], ranges: int = 1, config: MinHashConfig | None = None) -> list[str | Drop]:
    """Run the step as an engine would, the keys cut into ranges; ids are `split.row`."""
    exchange = stage(config)
    step = exchange.make(**exchange.settings)
    documents = [
        [Document(f"{i}.{j}", text, "web") for j, text in enumerate(texts)] for i, texts in enumerate(splits)
    ]
    decisions = reduced(step, documents, ranges)
    by_place: dict[tuple[int, int], list[dict[str, object]]] = {}
    for decision in step.combine(decisions, InMemory(documents)).to_pylist():
        by_place.setdefault((decision.pop("split"), decision.pop("row")), []).append(decision)
    results = [
        step.apply(document, by_place.get((i, j), []))
        for i, part in enumerate(documents)
        for j, document in enumerate(part)
    ]
    return [result if isinstance(result, Drop) else result.id for result in results]


def reduced(step: MinHash, documents: list[list[Document]], ranges: int) -> pa.Table:
    keys, split_of, row_of = [], [], []
    for i, part in enumerate(documents):
        for j, document in enumerate(part):
            emitted = [int(key) for key in step.emit(document)["key"]]
            keys += emitted
            split_of += [i] * len(emitted)
            row_of += [j] * len(emitted)
    table = pa.table(
        {
            "key": pa.array(keys, pa.uint64()),
            "split": pa.array(split_of, pa.uint32()),
            "row": pa.array(row_of, pa.uint32()),
        }
    )
    found = []
    for part in range(ranges):
        records = table.filter(pa.array([key % ranges == part for key in keys], pa.bool_()))
        with duckdb.connect() as connection:
            connection.register("records", records)
            found.append(connection.sql(step.reduce).to_arrow_table())
    return pa.concat_tables(found).sort_by([("split", "ascending"), ("row", "ascending")])


def text_of(numbers: Iterable[int]) -> str:
    return " ".join(f"w{number}" for number in numbers)


def jaccard(left: str, right: str, n: int = 5) -> float:
    a, b = ({tuple(w[i : i + n]) for i in range(len(w) - n + 1)} for w in (left.split(), right.split()))
    return len(a & b) / len(a | b)


def pair(similar_words: int, total_words: int, seed: int) -> tuple[str, str]:
    """Two texts with a common beginning."""
    draw = random.Random(seed)
    common = [draw.randrange(10**9) for _ in range(similar_words)]
    ends = [[draw.randrange(10**9) for _ in range(total_words - similar_words)] for _ in range(2)]
    return text_of(common + ends[0]), text_of(common + ends[1])


def test_a_copy_with_other_case_and_punctuation_is_dropped_and_names_what_is_kept():
    original = "The quick brown fox jumps over the lazy dog, and runs away into the forest."
    copy = "THE QUICK BROWN FOX -- jumps over the lazy dog and runs away (into the forest)"
    kept, other, dropped = deduplicate([original, text_of(range(40))], [copy])
    assert (kept, other) == ("0.0", "0.1")
    assert dropped == Drop("near_duplicate", score=1.0, detail="0.0")


def test_documents_shorter_than_a_shingle_meet_only_when_equal():
    results = deduplicate(["yes", "no", "Yes!", "one two three", "one two four", "", "", "..."])
    assert [isinstance(result, Drop) for result in results] == [False, False, True] + [False] * 5


def test_links_are_transitive_and_the_first_document_of_a_cluster_stays():
    numbers = list(range(400))
    chain = [text_of(numbers[shift : shift + 300]) for shift in (0, 10, 20, 30, 40, 50)]
    assert jaccard(chain[0], chain[1]) > 0.9
    results = deduplicate(list(reversed(chain)))
    assert results[0] == "0.0"
    assert [result.detail for result in results[1:] if isinstance(result, Drop)] == ["0.0"] * 5


@pytest.mark.parametrize("similar_words", [150, 210, 240, 255, 270, 280, 290])
def test_pairs_are_linked_as_often_as_the_curve_says(similar_words: int):
    pairs = [pair(similar_words, 300, seed) for seed in range(60)]
    config = MinHashConfig()
    expected = config.probability(jaccard(*pairs[0]))
    step = MinHash(config)
    linked = 0
    for left, right in pairs:
        keys = [set(map(int, step.emit(Document("d", text, "s"))["key"])) for text in (left, right)]
        linked += bool(keys[0] & keys[1])
    assert abs(linked / len(pairs) - expected) < 0.2  # three standard deviations of 60 throws


def test_equal_values_of_two_signatures_estimate_exact_jaccard():
    step = MinHash(MinHashConfig(bands=128, rows=8))
    for similar_words in (60, 150, 240, 285):
        left, right = pair(similar_words, 300, seed=similar_words)
        equal = np.mean(step.signature(left) == step.signature(right))
        assert equal == pytest.approx(jaccard(left, right), abs=0.05)  # three of sqrt(s (1-s) / 1024)


def test_a_signature_is_the_minimum_over_all_shingles_one_by_one():
    config = MinHashConfig(bands=2, rows=3)
    step = MinHash(config)
    text = text_of(range(5000))
    shingles = [int(h) for h in ngram_hashes(WordHashes()(text), config.shingle_words)]
    multipliers, offsets = step._multipliers[:, 0].tolist(), step._offsets[:, 0].tolist()
    naive = [
        min((a * shingle + b) % 2**64 for shingle in shingles)
        for a, b in zip(multipliers, offsets, strict=True)
    ]
    assert step.signature(text).tolist() == naive


def test_hash_functions_and_keys_are_the_same_in_every_version():
    step = MinHash(MinHashConfig(bands=2, rows=2))
    keys = step.emit(Document("d", "one two three four five six", "s"))["key"]
    assert [int(key) for key in keys] == [16579323531093424703, 11979774497302558560]


def test_decisions_do_not_depend_on_how_keys_are_cut_into_ranges():
    texts = [text for seed in range(20) for text in pair(280, 300, seed % 7)]
    assert deduplicate(texts, texts[:5]) == deduplicate(texts, texts[:5], ranges=7)


def test_real_books_hold_no_near_duplicates_and_their_edited_copies_are_found(austen_pages: list[str]):
    edited = [page.replace(" the ", " THE, ", 40).replace("Emma", "Emily", 1) for page in austen_pages]
    results = deduplicate(austen_pages, edited)
    assert [result for result in results[: len(austen_pages)] if isinstance(result, Drop)] == []
    found = [result.detail for result in results[len(austen_pages) :] if isinstance(result, Drop)]
    assert found == [f"0.{i}" for i in range(len(austen_pages))]


def test_words_unite_case_and_compatibility_forms_and_drop_punctuation():
    assert words("Ｃａｆé _Straße_ don't—STOP 3.14") == ["café", "strasse", "don", "t", "stop", "3", "14"]


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str):
    step = MinHash(MinHashConfig(bands=2, rows=2))
    assert len(step.emit(Document("d", text, "s"))["key"]) == (2 if words(text) else 0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_clusters_are_those_of_a_naive_search(links: list[tuple[int, int]]):
    left, right = (np.array([link[end] for link in links], np.int64) for end in (0, 1))
    numbers, first = first_of_cluster(left, right)
    cluster = {number: {number} for link in links for number in link}
    for a, b in links:
        union = cluster[a] | cluster[b]
        cluster.update(dict.fromkeys(union, union))
    assert dict(zip(numbers.tolist(), first.tolist(), strict=True)) == {
        number: min(members) for number, members in cluster.items()
    }


def test_a_long_chain_of_links_is_one_cluster_in_few_rounds():
    numbers = np.arange(200_000)
    order = np.random.default_rng(0).permutation(numbers)
    _, first = first_of_cluster(order[:-1], order[1:])
    assert not first.any()


def same_start(_split: Split) -> Iterator[Document]:
    for number in range(6):
        yield Document(f"page-{number}", text_of([*range(300), number % 2]), "web")


def make_same_start() -> Reader:
    return same_start


def test_the_engine_drops_all_but_the_first_and_the_ledger_names_it(tmp_path: Path):
    splits = (Split("a", str(tmp_path)), Split("b", str(tmp_path)))
    result = run_inline((Read(splits, make_same_start), stage()))
    assert [document.id for document in result.documents] == ["page-0"]
    dropped = [row for row in result.ledger if row.outcome == "dropped"]
    assert {(row.stage, row.reason, row.detail) for row in dropped} == {
        ("near_duplicates", "near_duplicate", "page-0")
    }
    assert all(row.score is not None and row.score > 0.9 for row in dropped)
