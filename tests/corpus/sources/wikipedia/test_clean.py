"""Wikitext to text: each pitfall of other recreations by name, and properties over any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.wikipedia import inline
from criadero.corpus.sources.wikipedia.clean import clean_text, make_cleaner
from criadero.corpus.sources.wikipedia.languages import LANGUAGES, names_of
from linear_time import is_linear


def _clean(text: str, language: str = "en") -> str:
    return clean_text(text, language=language)


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("'''''A''''' ''b'' [[c]] [[d|e]] [[f (g)|]]s", "A b c e fs"),
        ("[http://a.b text] and [http://a.b] and http://a.b/c", "text and and http://a.b/c"),
        ("a<ref>x</ref> b<ref name=n/> c<ref name='m'>{{cite|y}}\n\nz</ref>.", "a b c."),
        ("a<!-- x -->b\n<!-- alone -->\nc", "ab\nc"),
        ("a&nbsp;b &amp; c&ndash;d &lt;e&gt;", "a b & c–d <e>"),
        ("<nowiki>[[a]] ''b'' {{c}}</nowiki> d", "[[a]] ''b'' {{c}} d"),
        ("mass <math>E = mc^2</math> here", "mass $E = mc^2$ here"),
        ("x<sup>2</sup>, CO<sub>2</sub>, <small>s</small>", "x2, CO2, s"),
        ("<div style='a'>b</div><br />c", "b\n\nc"),
        ("__NOTOC__ a __INHALT_B__ b __init__", "a b __init__"),
        ("[[Category:A]] a [[de:A]] [[:Category:A]] [[Category:A|b]]", "a Category:A"),
        ("[[File:a.jpg|thumb|of [[b|c]] and [[d]]]] e", "e"),
        ("[[Image:a.jpg|thumb|one\n\ntwo]]\ne", "e"),
        ("<gallery>\nFile:a.jpg|b\n</gallery> c", "c"),
        ("* a\n* b\n** c\n# d\n: e\n; f", "* a\n* b\n** c\n# d\ne\nf"),
        ("a\n\n\n\nb\nc", "a\n\nb\nc"),
        ("----\na", "a"),
        ("<pre>\n a  b\n</pre>", "a  b"),
        ("5 < 6 and <3", "5 < 6 and <3"),
        ("a \ufdd0 b\x00\u200bc", "a b" + "c"),
    ],
)
def test_markup_becomes_what_readers_see(wikitext: str, expected: str) -> None:
    assert _clean(wikitext) == expected


def test_pitfall_strip_code_leaves_holes_where_templates_were() -> None:
    river = "The '''Ob''' ({{lang-ru|Обь}}; {{IPA-ru|opʲ}}) is a {{convert|3650|km|mi|adj=on}} long river."
    assert _clean(river) == "The Ob (Обь) is a 3,650 km long river."


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("A ({{IPA-en|x}}) b", "A b"),
        ("A ({{IPA-en|x}}; {{lang-fr|c}}) b", "A (c) b"),
        ("A ({{lang-fr|c}}, {{IPA-fr|x}}) b", "A (c) b"),
        ("A (''c'', {{IPA-fr|x}}, d) b", "A (c, d) b"),
        ("A (<ref>x</ref>) b", "A b"),
        ("A {{coord|1|2}}, b {{x}}.", "A, b."),
        ("one.<ref>a</ref>Two", "one. Two"),
        ("f() and g( )", "f() and g( )"),
    ],
)
def test_brackets_emptied_by_a_template_go_and_no_others(wikitext: str, expected: str) -> None:
    assert _clean(wikitext) == expected


def test_pitfall_empty_sections_leave_bare_headings() -> None:
    text = "Lead.\n== A ==\n=== B ===\n{{x}}\n== C ==\n=== D ===\ntext\n== E ==\n[[File:x.jpg]]\n"
    assert _clean(text) == "Lead.\n\nC\n\nD\n\ntext"


TAILS = {
    "bg": "Външни препратки", "ca": "Enllaços externs", "cs": "Externí odkazy", "da": "Eksterne henvisninger",
    "de": "Einzelnachweise", "en": "External links", "es": "Véase también", "fr": "Notes et références",
    "hr": "Vanjske poveznice",
    "hu": "További információk", "it": "Collegamenti esterni", "nl": "Externe links",
    "pl": "Linki zewnętrzne", "pt": "Ligações externas", "ro": "Legături externe", "ru": "Примечания",
    "sl": "Zunanje povezave", "sr": "Спољашње везе", "sv": "Externa länkar", "uk": "Примітки",
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_pitfall_nobody_removes_tail_sections_in_20_languages(language: str) -> None:
    text = f"Lead.\n== {TAILS[language]} ==\n* [http://a b]\n=== Sub ===\nmore\n== Last ==\ntext"
    assert _clean(text, language) == "Lead.\n\nLast\n\ntext"
    assert _clean(f"Lead.\n== ''{TAILS[language].upper()}:'' ==\nx", language) == "Lead."


def test_there_are_20_languages_and_the_two_scripts_of_serbian() -> None:
    assert len(LANGUAGES) == len(TAILS) == 20
    assert _clean("a\n== Spoljašnje veze ==\nx", "sr") == "a"
    assert _clean("-{latinica}- i -{sr-ec: ћир; sr-el: lat}-", "sr") == "latinica i ћир"


def test_titles_with_two_meanings_are_tails_only_at_the_end() -> None:
    text = "Lead.\n== Sources ==\nof the Nile\n== Course ==\nnorth\n== Sources ==\nbooks\n== References ==\nx"
    assert _clean(text) == "Lead.\n\nSources\n\nof the Nile\n\nCourse\n\nnorth"


def test_pitfall_tables_are_lost() -> None:
    text = """Before
{| class="wikitable sortable" style="a"
|+ Rivers
|-
! scope="col" | Name !! Length
|-
| [[Nile]] || align=right | {{convert|6650|km}}<ref>x</ref>
|-
| Ob || <br/>
{| class="x"
| inner
|}
|}
After"""
    assert _clean(text) == "Before\n\nRivers\nName | Length\nNile | 6,650 km\nOb\n\nAfter"


def test_boxes_and_layout_tables_are_removed_and_unclosed_ones_end_at_a_heading() -> None:
    assert _clean("a\n{| style='float:right'\n| box\n|}\nb") == "a\n\nb"
    assert _clean("a\n{| style='float:right'\n| box\n== B ==\nb") == "a\n\nB\n\nb"


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("a [[b c", "a b c"),
        ("a b]] c", "a b c"),
        ("a ''b c", "a b c"),
        ("a {{b c", "a b c"),
        ("a <ref>b c", "a b c"),
        ("a <ref>b <ref>c</ref> d", "a b d"),
        ("a <div><b>b</div> c", "a\nb\nc"),
        ("a [[b|[[c]] d", "a b|c d"),
        ("== a =\nb", "= a\n\nb"),
        ("a [http://b c", "a [http://b c"),
    ],
)
def test_pitfall_unbalanced_markup_raises_or_is_skipped(wikitext: str, expected: str) -> None:
    assert _clean(wikitext) == expected


def test_where_the_parser_fails_patterns_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise inline.ParserError("no")

    monkeypatch.setattr(inline.mwparserfromhell, "parse", fail)
    assert _clean("'''a''' [[b|c]] [[d]] &amp; e") == "a c d & e"


def test_names_of_the_dump_count_beside_those_of_the_tables() -> None:
    clean = make_cleaner(namespaces={"de": {"files": ["Aktenstück"], "categories": ["Schublade"]}})
    text = (
        "[[Aktenstück:a.jpg|mini|x]] [[Datei:a.jpg]] [[Bild:b]] [[File:c]] a [[Schublade:b]] [[Kategorie:c]]"
    )
    cleaned = clean(Document("de:1", text, "wikipedia", {"language": "de"}))
    assert isinstance(cleaned, Document)
    assert cleaned.text == "a"


def test_an_article_of_nothing_but_markup_is_dropped() -> None:
    clean = make_cleaner(namespaces={})
    dropped = clean(Document("en:1", "{{x}}\n== See also ==\n* [[a]]", "wikipedia", {"language": "en"}))
    assert dropped == Drop("no_text", detail="nothing but markup")


def test_no_entity_makes_half_a_surrogate_pair() -> None:
    assert _clean("a &#xD800; &#55357;&#56832; &#x110000; b").encode().decode() == "a � �� &#x110000; b"


_MARKUP = st.text(
    alphabet=st.one_of(
        st.sampled_from("{}[]|=<>'*#:;!-_&/\n (),.ab"), st.characters(exclude_categories=["Cs"])
    ),
    max_size=80,
)


@given(_MARKUP, st.sampled_from(LANGUAGES))
def test_any_text_is_cleaned_without_a_crash(text: str, language: str) -> None:
    cleaned = _clean(text, language)
    assert cleaned.encode().decode() == cleaned == cleaned.strip()
    assert not set(cleaned) & {"\ufdd0", "\ufdd1", "\ufdd2"}


_PLAIN = st.lists(st.text(alphabet="abÜя ,.()-\n\n*#", max_size=30), max_size=6).map("\n".join)


@given(_PLAIN)
def test_cleaning_clean_text_changes_nothing(text: str) -> None:
    once = _clean(text)
    assert _clean(once) == once


@pytest.mark.parametrize(
    "unit",
    ["{{{{[[[[", "[[a|", "<div ", "<b>", "'''a", "\n{|\n|", "<ref>", "[[File:a|[[b", "{{nowrap|", "( ,"],
)
def test_twice_the_text_takes_less_than_three_times_as_long(unit: str) -> None:
    assert is_linear(_clean, lambda length: (unit * length)[:length], 50_000)


def test_every_language_knows_the_english_names_too() -> None:
    for language in (*LANGUAGES, "xx"):
        names = names_of(language)
        assert {"file", "image"} <= names.files
        assert "category" in names.categories
        assert "references" in names.tail
