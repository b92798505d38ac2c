"""The templates whose text is part of a sentence, and what they say; all others say nothing.

Entry point: `render_for(language)`. Most templates are boxes, notes and navigation. Left out together with
these, a measure or a foreign word leaves a hole ("is a  km long"), so these few are written out here: names
all Wikipedias share first, then those of single languages.
"""

from __future__ import annotations

import re
from functools import cache

from criadero.corpus.sources.wikipedia.expand import Arguments, Render
from criadero.corpus.sources.wikipedia.markup import HOLE
from criadero.corpus.sources.wikipedia.units import measure
from criadero.corpus.sources.wikipedia.wording import (
    Text,
    after_word,
    always,
    around,
    as_of,
    bulleted,
    century,
    chinese,
    date,
    first,
    fraction,
    joined,
    last,
    link_elsewhere,
    money,
    nihongo,
    quotation,
    second,
    second_or_first,
    value,
    years,
)

_LANG_CODE = re.compile(r"(?:lang|langue|language)-[a-z]{2,3}(?:-[a-z]+)?")


@cache
def render_for(language: str) -> Render:
    """Return the function that gives a template's text, by name, for one Wikipedia."""
    table = _SHARED | _OWN.get(language, {})

    def render(name: str, arguments: Arguments) -> str:
        key = name.casefold()
        known = table.get(key) or _by_pattern(key)
        if known is not None:
            return known(arguments) or HOLE
        if ":" in key and key.partition(":")[0] in _PARSER_FUNCTIONS:
            return name.partition(":")[2].strip()
        return HOLE

    return render


def _by_pattern(key: str) -> Text | None:
    if _LANG_CODE.fullmatch(key):
        return first
    return None


_PARSER_FUNCTIONS = frozenset({"formatnum", "lc", "uc", "lcfirst", "ucfirst", "nowrap"})


def _table(*rows: tuple[str, Text]) -> dict[str, Text]:
    return {name.strip(): text for names, text in rows for name in names.split(",")}


_SHARED = _table(
    (
        "nowrap, nobr, nowr, small, smaller, resize, big, larger, large, sc, smallcaps, small caps, "
        "sc2, abbr, "
        "tooltip, abbrlink, vanchor, visible anchor, em, strong, kbd, var, mvar, math, bigmath, tmath, "
        "nobold, "
        "noitalic, noital, normal, not a typo, typo, proper name, as written, chem name, ipa, unicode, "
        "polytonic, transl-grc, nastaliq, flag, flagcountry, flagu, flagdeco, overline, underline, strike, "
        "mono, code, monospace, samp, text, bdo, lrt, zh-tr, esc, hebrew, rtl-para, ltr, translit, nts, dts, "
        "number, num, bold, italic, italics, i, b, u, s, sup sub, interp, bracket, longitem, nobreak, "
        "bold italic, plain, plainlist, flatlist, big2, font size, center, centre, left, right, align text, "
        "title-case, inlineref, oldstyle, no wrap, nolink, smalldiv, poem, poemquote, verse, poem quote, "
        "nobr all, slink, section link, em2, linktext, lcfirst, ucfirst, gloss, lj, ipalink, ipablink, zhi, "
        "bo, asiantitle, audio, simple, keep, aut, titlecase",
        first,
    ),
    (
        "lang, langue, language, transl, transliteration, langx, color, colour, font color, "
        "font colour, script",
        last,
    ),
    ("lang-en, lang-la", first),
    ("convert, cvt, conv, convert/2", lambda a: measure(a, grouped=True)),
    ("unité, unidad, unità, unitat, unitate", measure),
    ("quote, blockquote, cquote, quotation, quote box, rquote, bquote, pull quote, block quote", quotation),
    ("centered pull quote, long quote, quotebox", quotation),
    ("as of, as of?, asof", as_of),
    ("birth date, birth date and age, bda, dob, birth-date, death date, death date and age, dda", date),
    ("start date, start date and age, end date, film date, launch date, date of birth, start-date", date),
    ("circa, c., ca", years("c.")),
    ("floruit, fl., fl", years("fl.")),
    ("reign, r.", years("r.")),
    ("born in, b.", years("born")),
    ("died in, d.", years("died")),
    ("frac, fraction, sfrac, 1/2", fraction),
    ("val", value),
    ("formatnum, gaps, chem, chem2, ce, simplenuclide, nuclide, su", joined("")),
    ("e", around(" × 10^")),
    ("keypress, key press, key", joined(" + ")),
    ("hlist, cslist, flat list, comma separated entries, csl", joined(", ")),
    ("ubl, ubil, unbulleted list, bulleted list, ordered list, plain list, blist, vunblist", bulleted),
    ("ill, interlanguage link, interlanguage link multi, iw, link-interwiki, ill-wd2, illm", link_elsewhere),
    ("nihongo, nihongo2, nihongo3, nihongo foot", nihongo),
    ("zh, lang-zh, zh-t, zh-c", chinese),
    ("angbr, angle bracket, angbr ipa", around("⟨", "⟩")),
    ("sup, superscript, exp", around("^")),
    ("sub, subscript, ind", first),
    ("sic", lambda a: "".join(a.places[:2]) or "[sic]"),
    ("'\", \"', ' \", \" '", lambda a: joined("")(a) or "'"),
    ("eqm, equilibrium", always(" ⇌ ")),
    ("vr, vowel representation, grapheme", around("⟨", "⟩")),
    ("simplenuclide2, nuclide2", joined("-")),
    ("railgauge, track gauge, format price", first),
    ("columns-list, div col content, native name, rtl-lang, multicol content", last),
    ("columns", lambda a: "\n".join(text for name, text in a.names.items() if re.fullmatch(r"col\d", name))),
    (
        "nbsp, nbs, space, spaces, spc, thinsp, thin space, hair space, hairsp, zwsp, wbr, ensp, emsp",
        always(" "),
    ),
    ("·, dot, middot, •, bullet, bull, bold middot, \\, pipe2", always(" · ")),
    ("ndash, endash, –, en dash", always("–")),
    ("mdash, emdash, —, em dash", always("—")),
    ("snd, spnd, sndash, spaced ndash, spaced en dash, dash, snds", always(" – ")),
    ("mdashb, smd, spaced mdash", always(" — ")),
    ("!, pipe", always("|")),
    ("=", always("=")),
    ("'", always("'")),
    ("'s", always("'s")),
    ("!-", always("|-")),
    ("(", always("{")),
    (")", always("}")),
    ("okina, hamza, ayin, ain", always("ʻ")),
    ("shy, clear, -", always("")),
    ("us$, usd, $, us dollar", money("US$")),
    ("€, euro, eur", money("€")),
    ("£, gbp, pound sterling", money("£")),
    ("¥, jpy, yen, cny", money("¥")),
    ("inr, indian rupee, ₹", money("₹")),
    ("a$, aud", money("A$")),
    ("br, break, crlf, -br", always("\n")),
    ("sharp, music", always("♯")),
    ("flat", always("♭")),
    ("number sign, no., numero, №", around("No. ")),
    ("url, oldstyledate, oldstyle date", first),
    ("ad, ce year", around("AD ")),
    ("bc, bce", around("", " BC")),
    ("ship", joined(" ")),
)

_SHIPS = ("uss", "hms", "hmas", "hmcs", "ss", "rms", "sms", "hmnzs", "mv", "ms", "ins", "usns", "uscgc")
_SHARED |= {name: after_word(name.upper()) for name in _SHIPS}
_SHARED["commas"] = _SHARED["separated entries"] = joined(", ")

_OWN: dict[str, dict[str, Text]] = {
    "bg": _table(("цитат", quotation), ("lang-bg, нобр, мали", first), ("рз", first)),
    "ca": _table(
        ("citació, cita", quotation), ("versaleta, petit, format ref", first), ("segle", around("segle "))
    ),
    "cs": _table(
        ("citát, citace bloku", quotation),
        ("cizojazyčně, vjazyce2, cj", second),
        ("malé, nezalomit, zkratka, pnbsp", first),
        ("km2", always("km²")),
    ),
    "da": _table(("citat, citatboks", quotation), ("lille, unicode", first)),
    "de": _table(
        ("zitat, zitat-it, zitat-en, zitat-fr, zitat-la", quotation),
        ('"', around("„", "“")),
        ("§", lambda a: " ".join(["§", *(p for p in a.places if p)])),
        (
            "ens, frs, las, its, ess, rus, rus2, grcs, els, pls, css, nls, pts, sqs, jas, hes, ars, ukrs",
            first,
        ),
        ("larger, kapitälchen, farbe, anführung, japanisch", first),
        ("flagge, zahl, formatzahl", first),
        ("dat, datum", joined(". ")),
    ),
    "es": _table(
        ("cita, cita destacada, cquote", quotation),
        ("esd, versalita, versales, definición, abreviatura, nwr, nw", first),
        ("siglo", around("siglo ")),
        ("ac, a. c.", always("a. C.")),
        ("fecha", joined(" de ")),
    ),
    "fr": _table(
        ("citation bloc, début citation", quotation),
        ("citation, guil, «, citation étrangère", around("« ", " »")),
        ("s, s-, siècle, sp, s2, s2-, sap, -s", century("siècle")),
        ("date, date-, date de naissance, date de décès", joined(" ")),
        ("nombre, nb, unité/2, tunité, num", joined(" ")),
        ("heure", joined(" h ")),
        ("incise", around("– ", " –")),
        (
            "petit, nobr romain, romain, abréviation discrète, abd, abréviation, abrd, pc, petites capitales",
            first,
        ),
        ("1er", always("1er")),
        ("1re", always("1re")),
        ("e, ème, exp", lambda a: a.get(1) or "e"),
        ("lien, lien rouge", lambda a: a.names.get("texte") or a.get(3) or a.names.get("fr") or a.get(1)),
        ("av jc, av j-c, avjc, -c", always("av. J.-C.")),
        ("ap jc, apjc", always("apr. J.-C.")),
        ("n°, numéro, no", lambda a: f"no {a.get(1)}".strip()),
        ("m., mme, mlle, dr, me, st, ste", joined(" ")),
        ("souverain, souverain-, souverain2, souverain3", first),
        ("langue, lang", second_or_first),
        ("japonais", nihongo),
        ("formule, x10, fchim", joined("")),
    ),
    "hr": _table(("citat", quotation), ("jez, malo", first)),
    "hu": _table(("idézet, idézet2", quotation), ("szám", first), ("nyelvi, jelnyelv", first)),
    "it": _table(
        ("citazione, quote", quotation),
        ("m, m., unità di misura, dim", measure),
        ("maiuscoletto, piccolo, fontsize, abbr", first),
    ),
    "nl": _table(
        ("citaat, cquote, citaatkader", quotation), ("klein, nwr, vertaal, afk", first), ("formatnum", first)
    ),
    "pl": _table(
        ("cytat, cytat d, cytat2", quotation),
        ("j, jęz, w języku, małe, kapitaliki, nowrap", first),
        ("r., data", joined(" ")),
    ),
    "pt": _table(
        ("citação, citação2, quote1, quote2", quotation),
        ("fmtn, formatar número", joined(" ")),
        ("séc, século", around("século ")),
        ("lknb, flink", second_or_first),
        ("dtlink, dni, data", joined(" de ")),
        ("ac", around("", " a.C.")),
        ("pequeno, versalete", first),
    ),
    "ro": _table(
        ("citat, citat bloc", quotation), ("ill, iwiki", link_elsewhere), ("mic, dec, dt", joined(" "))
    ),
    "ru": _table(
        ("цитата, врезка цитата, quote box", quotation),
        (
            "не переведено, не переведено 2, не переведено 3, не переведено 4, не переведено 5",
            second_or_first,
        ),
        ("нп, нп2, нп3, нп4, нп5, нп5+", second_or_first),
        ("число, num, s, nobr, comment, фон, sfr, langi, lang-ru2, цвет", first),
        ("lang-ru, lang-be, lang-uk, lang-bg, lang-sr", first),
        ("lang, langi", second_or_first),
        ("км, км2, кв. км", always("км²")),
        ("рп, рубль", around("", " ₽")),
        ("до н. э.", always("до н. э.")),
        ("ударение, удар", first),
        ("флагификация, флаг, флагификация2", first),
    ),
    "sl": _table(("citat", quotation), ("jezik, jezik2, malo", last), ("r., d.", joined(" "))),
    "sr": _table(
        ("цитат, citat, цитат2", quotation),
        ("јез, jez, јез-ен, јез-енгл, јез-лат, јез-рус, мало", last),
    ),
    "sv": _table(("citat, citatruta", quotation), ("språk, språk2", last), ("liten, mindre", first)),
    "uk": _table(
        ("цитата, цитата2", quotation),
        ("не перекладено, нп, нп2, нп3, нп4, нп5, не перекладено5", second_or_first),
        ("число, nobr, s, comment, фон, наголос", first),
        ("lang, langi", second_or_first),
        ("прапорець, прапор країни", first),
    ),
}
