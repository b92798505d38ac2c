"""One page an address and one page a line, held against a naive reference whatever the order of the pages."""

import hashlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import BadRecord, Document, Drop
from criadero.corpus.sources.c4 import sentences
from criadero.corpus.sources.c4.dedup import make_line_dedup, make_url_dedup
from criadero.corpus.sources.c4.page import normalize_url
from exchanges import exchange


def page(url, text, date="2019-04-24T09:23:58Z"):
    return Document(url + date, text, "c4", {"url": url, "date": date, "normalized_url": normalize_url(url)})


def run(make_step, pages):
    """Return texts by id, and the reasons of the rest."""
    results = list(zip(pages, exchange(make_step(), pages, splits=3), strict=True))
    kept = {p.id: result.text for p, result in results if isinstance(result, Document)}
    return kept, {p.id: result.reason for p, result in results if isinstance(result, Drop)}


def naive_lines(pages):
    """Return what stays by the rule as it is told: a line is of the url that hashes smallest."""
    owner = {}
    for p in pages:
        for line in p.text.split("\n"):
            mine = hashlib.md5(p.metadata["url"].encode()).hexdigest()
            owner[line.strip().lower()] = min(mine, owner.get(line.strip().lower(), "g"))
    kept = {}
    for p in pages:
        seen, lines = set(), []
        for line in p.text.split("\n"):
            key = line.strip().lower()
            if owner[key] == hashlib.md5(p.metadata["url"].encode()).hexdigest() and key not in seen:
                lines.append(line)
            seen.add(key)
        if sentences.count("\n".join(lines)) >= 3:
            kept[p.id] = "\n".join(lines)
    return kept


LINES = st.sampled_from(
    ["One line stands here.", "one LINE stands here.", " Two more lines. ", "Three. And four.", "Five!"]
)
PAGES = st.lists(st.lists(LINES, min_size=1, max_size=6).map("\n".join), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(PAGES, st.randoms(use_true_random=False))
def test_line_dedup_is_the_naive_rule_in_any_order(texts, chance):
    pages = [page(f"http://a.example/{number}", text) for number, text in enumerate(texts)]
    expected = naive_lines(pages)
    chance.shuffle(pages)
    assert run(make_line_dedup, pages)[0] == expected


def test_a_line_stays_in_the_page_whose_address_hashes_smallest_not_in_the_first():
    shared = "This line is on all of them."
    pages = [
        page(f"http://a.example/{n}", f"{shared}\nUnique {n} is here. So is it. And this {n}.")
        for n in range(9)
    ]
    pages.sort(key=lambda p: hashlib.md5(p.metadata["url"].encode()).hexdigest(), reverse=True)
    smallest = pages[-1]
    kept, _ = run(make_line_dedup, pages)
    assert [identity for identity, text in kept.items() if shared in text] == [smallest.id]


def test_a_page_stays_while_three_sentences_are_left_and_repeats_itself_nowhere():
    late = max((f"short/{n}" for n in range(9)), key=lambda url: hashlib.md5(url.encode()).hexdigest())
    pages = [
        page("first", "Shared line.\nAlone here.\nTwice here.\nBetween the two.\nTwice here.\ntwice HERE. "),
        page("other", "Alone on the other page.\nThis has two sentences. It really has.\nshared LINE. "),
        page(late, "Alone on the short page.\nShared line.\nOnly this is left."),
    ]
    kept, reasons = run(make_line_dedup, pages)
    assert kept == naive_lines(pages)
    assert "\n".join(kept.values()).lower().count("shared line.") == 1
    assert "\n".join(kept.values()).lower().count("twice here.") == 1
    assert list(reasons.values()) == ["too_few_sentences_left"]


def test_pages_of_shared_lines_alone_are_named_so():
    text = "It is here. It stays. It is long."
    kept, reasons = run(make_line_dedup, [page(f"http://a.example/{n}", text) for n in range(5)])
    assert list(kept.values()) == [text]
    assert list(reasons.values()) == ["only_duplicate_lines"] * 4


def test_of_one_address_the_newest_page_stays_in_any_order():
    pages = [
        page("http://www.a.example/x/", "old", "2019-04-20T00:00:00Z"),
        page("https://a.example/x?utm_source=y", "new", "2019-04-25T00:00:00Z"),
        page("https://a.example/x", "middle", "2019-04-24T00:00:00Z"),
        page("https://a.example/y", "other", "2019-04-24T00:00:00Z"),
    ]
    for seed in range(6):
        random.Random(seed).shuffle(pages)
        kept, reasons = run(make_url_dedup, pages)
        assert sorted(kept.values()) == ["new", "other"]
        assert list(reasons.values()) == ["duplicate_url"] * 2


def test_of_equally_new_pages_the_same_one_stays_in_any_order():
    pages = [page("http://a.example/x", text) for text in ("one", "two", "three")]
    pages = [Document(str(n), p.text, p.source, p.metadata) for n, p in enumerate(pages)]
    kept = {tuple(run(make_url_dedup, random.Random(seed).sample(pages, 3))[0].values()) for seed in range(8)}
    assert len(kept) == 1


def test_dropped_results_are_drops():
    step = make_url_dedup()
    assert step.apply(page("u", "t"), [{}]) == Drop("duplicate_url")
    assert not isinstance(step.apply(page("u", "t"), []), Drop | BadRecord)
