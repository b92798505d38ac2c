"""What templates say: the holes that a cleaner without them leaves in sentences, closed one by one."""

from __future__ import annotations

import pytest

from criadero.corpus.sources.wikipedia.clean import clean_text


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("is a {{convert|1600|km|mi|abbr=on}} long river", "is a 1,600 km long river"),
        ("{{convert|5|to|10|km|mi}} wide", "5 to 10 km wide"),
        ("{{convert|3|ft|6|in|m}} tall", "3 ft 6 in tall"),
        ("{{convert|9|x|15|m|ft}}", "9 × 15 m"),
        ("{{convert|20|–|30|C|F}}", "20–30 °C"),
        ("{{cvt|2.5|sqmi|km2|1}}", "2.5 sq mi"),
        ("{{convert|1|mile}}", "1 mile"),
        ("{{convert|4+1/2|in}}", "4 1/2 in"),
        ("{{convert|x|y}}", "x"),
        ("from {{lang|la|mater}} and {{lang-de|Mutter}}", "from mater and Mutter"),
        ("{{transl|ru|ISO|Moskva}} and {{transl|ru|Moskva}}", "Moskva and Moskva"),
        ("5{{nbsp}}kg, 3{{ndash}}4", "5 kg, 3–4"),
        ("the vowel {{IPA|/a/}}", "the vowel /a/"),
        ("'''Albedo''' ({{IPAc-en|æ|l}}) is", "Albedo is"),
        ("{{As of|2010|1}}, and {{as of|2011|lc=y}}", "As of January 2010, and as of 2011"),
        ("{{formatnum:1234567}} people", "1234567 people"),
        ("by {{ill|Jan Novák|cs}}", "by Jan Novák"),
        ("by {{ill|Jan Novák|cs|lt=Novák}}", "by Novák"),
        ("(born {{birth date|1980|1|5}})", "(born January 5, 1980)"),
        ("(born {{Birth date and age|1980|1|5|df=yes}})", "(born 5 January 1980)"),
        ("{{circa|1900}} to {{c.|1910}}", "c. 1900 to c. 1910"),
        ("{{frac|1|2}}, {{frac|2|1|3}}, {{frac|7}}", "1/2, 2 1/3, 1/7"),
        ("{{small|x}} {{nowrap|a b}} {{abbr|BC|before Christ}}", "x a b BC"),
        ("he {{sic|writed}} that {{sic}}", "he writed that [sic]"),
        ("{{val|6.02|e=23|u=mol}}", "6.02 × 10^23 mol"),
        ("{{nihongo|'''Tokyo'''|東京|Tōkyō}}", "Tokyo (東京, Tōkyō)"),
        ("H{{sub|2}}O and {{chem|H|2|O}}", "H2O and H2O"),
        ("{{US$|5}} or {{£|3}}", "US$5 or £3"),
        ("{{USS|Maine}} sank", "USS Maine sank"),
        ("said:{{quote|To be|Shakespeare}}so", "said:\nTo be\nso"),
        ("{{blockquote|text=To be}}", "To be"),
        ("{{hlist|a|b|c}}", "a, b, c"),
        ("{{ubl|a|b}}", "* a\n* b"),
        ("x {{unknown thing|y}} z", "x z"),
        ("x.{{citation needed|date=May 2015}} Z", "x. Z"),
        ("{{nowrap|''Z'' = 1}}", "Z = 1"),
        ("100 {{lang|fr|{{nowrap|mille {{unknown}}}}}}", "100 mille"),
    ],
)
def test_a_template_says_what_its_sentence_needs(wikitext: str, expected: str) -> None:
    assert clean_text(wikitext, language="en") == expected


@pytest.mark.parametrize(
    ("language", "wikitext", "expected"),
    [
        ("fr", "au {{s|XIX|e}}, {{unité|100|km}}", "au XIXe siècle, 100 km"),
        ("fr", "le {{date|5|mai|1821}}, {{citation|moi}}", "le 5 mai 1821, « moi »"),
        ("fr", "le {{1er}} mai, {{Lien|langue=en|texte=chat|fr=Chat}}", "le 1er mai, chat"),
        ("de", '{{"|ja}} nach {{§|242|BGB}}, {{enS|yes}}', "„ja“ nach § 242 BGB, yes"),
        ("ru", "{{нп3|Статья|статью|en|Article}} и {{lang-en|cat}}", "статью и cat"),
        ("uk", "{{нп|Стаття||en|Article}}", "Стаття"),
        ("es", "el {{siglo|XIX}}, {{unidad|5|km}}", "el siglo XIX, 5 km"),
        ("it", "{{citazione|cogito}}", "cogito"),
        ("cs", "{{cizojazyčně|en|cat}}", "cat"),
        ("sv", "{{språk|en|cat}}", "cat"),
        ("en", "as {{citation|last=A|url=http://a}} says", "as says"),
    ],
)
def test_the_same_name_may_say_something_else_elsewhere(language: str, wikitext: str, expected: str) -> None:
    assert clean_text(wikitext, language=language) == expected
