"""The whole recipe on the real dumps of the samples, and on small ones."""

from __future__ import annotations

import bz2
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from corpus.sources.wikipedia.exports import page, write_multistream, write_plain
from criadero.corpus.document import Document
from criadero.corpus.engine.inline import InlineResult, run_inline
from criadero.corpus.engine.stage import Read
from criadero.corpus.sources.wikipedia.clean import clean_text
from criadero.corpus.sources.wikipedia.recipe import WikipediaConfig, make_reader, stages
from criadero.errors import DataError

SAMPLES = Path(__file__).parents[4] / "samples" / "raw" / "wikipedia"

LEFT_OVER = (
    r"\{\{|\}\}", r"\[\[|\]\]", r"'''", r"''", r"</?\w[^<>]*>", r"\|\s*(?:thumb|right|left|\d+px)",
    r"(?:style|class|align|width|colspan|rowspan)\s*=", r"^\{\||\|\}", r"^[|!]", r"__[A-Z]+__",
    r"&(?:[a-z]+|#\d+);", r"\b(?:File|Image|Category|Файл|Категория):", r"^=+[^=]+=+$", r"^[:;]",
    r"\[(?:https?:)?//", r"\(\s*[,;)]", r"[,;]\s*\)", r"#(?:REDIRECT|if|switch):?", r"\bis an? +km\b",
    r"^(?:References|External links|See also|Further reading|Notes|Вижте също|Източници|Бележки)$",
)  # fmt: skip
# Formulas are TeX, and this page shows characters for their own sake.
_TEX = re.compile(r"\$[^$\n]*\$")


@pytest.fixture(scope="module")
def real() -> InlineResult:
    return run_inline(stages(WikipediaConfig(), source="wikipedia", inputs=[SAMPLES]), source="wikipedia")


def test_articles_are_kept_and_others_counted_by_reason(real: InlineResult) -> None:
    counts = Counter((row.stage, row.reason) for row in real.ledger if row.outcome == "dropped")
    assert counts == {("articles", "redirect"): 99, ("articles", "namespace"): 3}
    assert len(real.documents) == 107
    assert [d.id for d in real.documents[:3]] == ["bg:558", "en:12", "en:25"]


def test_no_article_of_a_real_dump_shows_markup(real: InlineResult) -> None:
    patterns = [re.compile(pattern, re.MULTILINE) for pattern in LEFT_OVER]
    found = []
    for document in real.documents:
        text = _TEX.sub("x", document.text)
        for pattern in patterns:
            found += [
                (document.metadata["title"], text[max(0, m.start() - 30) : m.end() + 30])
                for m in pattern.finditer(text)
            ]
    own_slip_of_the_article = (
        "Agriculture",
        "lobal warming potential of CO2,) and 37% of all human-induced ",
    )
    assert [entry for entry in found if entry != own_slip_of_the_article] == []


def test_documents_say_where_they_come_from(real: InlineResult) -> None:
    anarchism = next(d for d in real.documents if d.id == "en:12")
    assert dict(anarchism.metadata) == {
        "title": "Anarchism",
        "language": "en",
        "revision": anarchism.metadata["revision"],
        "url": "https://en.wikipedia.org/wiki/Anarchism",
        "licence": "CC-BY-SA-4.0",
    }
    assert anarchism.metadata["revision"].isdigit()
    assert len({d.id for d in real.documents}) == len(real.documents)
    bulgarian = next(d for d in real.documents if d.metadata["language"] == "bg")
    assert bulgarian.metadata["url"].startswith("https://bg.wikipedia.org/wiki/%D0")


def test_cleaning_real_articles_again_changes_only_formulas_and_code(real: InlineResult) -> None:
    changed = [d for d in real.documents if clean_text(d.text, language=d.metadata["language"]) != d.text]
    assert {d.metadata["title"] for d in changed if "$" not in d.text} <= {"Algorithm", "Ambiguity"}
    assert len(changed) < 7


def test_known_sentences_of_a_real_article_read_well(real: InlineResult) -> None:
    text = {d.metadata["title"]: d.text for d in real.documents}
    assert text["Albedo"].startswith(
        'Albedo or reflection coefficient, derived from Latin albedo "whiteness" ('
    )
    assert "an area of 2,381,741 km²" in text["Algeria"]
    assert text["Achilles"].startswith("In Greek mythology, Achilles (Ἀχιλλεύς, Akhilleus) was a Greek hero")


def test_parts_of_every_kind_give_the_same_articles(tmp_path: Path) -> None:
    pages = [page(n, f"Text {n}.") for n in range(12)]
    several, plain = tmp_path / "several.xml.bz2", tmp_path / "plain.xml.bz2"
    write_multistream(several, *("".join(pages[n : n + 3]) for n in range(0, 12, 3)))
    write_plain(plain, *pages)
    results = [run_inline(stages(WikipediaConfig(), source="w", inputs=[p])) for p in (several, plain)]
    assert results[0].documents == results[1].documents
    assert [d.id for d in results[0].documents] == [f"de:{n}" for n in range(12)]


def test_bad_pages_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    bad = page(2, "x").replace("</title>", "")
    unclosed = page(3, "x").replace("</page>", "")
    path = write_plain(tmp_path / "a.xml.bz2", page(1, "One."), bad, unclosed, page(4, "Four."))
    path.write_bytes(path.read_bytes()[:-4])
    result = run_inline(stages(WikipediaConfig(), source="w", inputs=[path]))
    assert [d.id for d in result.documents] == ["de:1", "de:4"]
    bad_rows = [(row.id, row.reason) for row in result.ledger if row.outcome == "bad"]
    assert bad_rows == [
        ("a.xml.bz2#1", "bad_xml"), ("a.xml.bz2#2", "unclosed_page"), ("a.xml.bz2", "truncated"),
    ]  # fmt: skip


def test_redirects_are_told_by_element_not_by_english_text(tmp_path: Path) -> None:
    path = write_plain(
        tmp_path / "a.xml.bz2",
        page(1, "#WEITERLEITUNG [[B]]", redirect="B"),
        page(2, "#REDIRECT is a word that this article is about."),
        page(3, "   \n"),
    )
    result = run_inline(stages(WikipediaConfig(), source="w", inputs=[path]))
    assert [d.id for d in result.documents] == ["de:2"]
    assert [(r.id, r.reason) for r in result.ledger if r.outcome == "dropped"] == [
        ("de:1", "redirect"), ("de:3", "empty"),
    ]  # fmt: skip


def test_settings_of_a_recipe_are_json_and_its_splits_the_same_every_time() -> None:
    one, two = (stages(WikipediaConfig(), source="w", inputs=[SAMPLES]) for _ in range(2))
    assert one == two
    read = one[0]
    assert isinstance(read, Read)
    json.dumps([[dict(s.parts) for s in read.splits], dict(read.settings)])
    documents = list(make_reader(source="w")(read.splits[0]))
    assert all(isinstance(d, Document) for d in documents)


def test_inputs_that_are_no_dumps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to read"):
        stages(WikipediaConfig(), source="w", inputs=[tmp_path])
    index = tmp_path / "dewiki-pages-articles-multistream-index.txt.bz2"
    index.write_bytes(b"")
    with pytest.raises(DataError, match="no dump"):
        stages(WikipediaConfig(), source="w", inputs=[index])
    (tmp_path / "a.xml").write_text("<mediawiki><page>")
    with pytest.raises(DataError, match="language"):
        stages(WikipediaConfig(), source="w", inputs=[tmp_path])
    assert stages(WikipediaConfig(language="en"), source="w", inputs=[tmp_path])


@pytest.mark.parametrize(
    "other",
    ["dewiki-1-pages-articles.xml.bz2", "dewiki-2-pages-articles-multistream1.xml-p1p9.bz2",
     "dewiki-1-pages-articles-multistream.xml.bz2"],
    ids=["plain and multistream", "two dates", "whole and in parts"],
)  # fmt: skip
def test_one_site_dumped_twice_is_refused_because_its_ids_would_repeat(tmp_path: Path, other: str) -> None:
    for name in ("dewiki-1-pages-articles-multistream1.xml-p1p9.bz2", other):
        write_plain(tmp_path / name, page(1, "One."))
    with pytest.raises(DataError, match="hold the same pages"):
        stages(WikipediaConfig(), source="w", inputs=[tmp_path])


def test_parts_of_one_dump_and_dumps_of_several_sites_are_read_together(tmp_path: Path) -> None:
    for number, name in enumerate(("dewiki-1-pages-articles1.xml-p1p1", "dewiki-1-pages-articles2.xml-p2p2")):
        write_plain(tmp_path / f"{name}.bz2", page(number, "Text."))
    (tmp_path / "own").mkdir()
    write_plain(tmp_path / "own" / "enwiki-2-pages-articles.xml.bz2", page(1, "Text."))
    other = tmp_path / "own" / "enwiki-2-pages-articles.xml.bz2"
    other.write_bytes(bz2.compress(bz2.decompress(other.read_bytes()).replace(b"dewiki", b"enwiki")))
    result = run_inline(stages(WikipediaConfig(), source="w", inputs=[tmp_path]))
    assert [d.id for d in result.documents] == ["de:0", "de:1", "en:1"]
