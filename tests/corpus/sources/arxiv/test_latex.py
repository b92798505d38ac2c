r"""LaTeX as text: comments, macros, what public recreations get wrong, pylatexenc as a second opinion."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import latex_oracle
from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.arxiv import archive
from criadero.corpus.sources.arxiv.body import cut_body
from criadero.corpus.sources.arxiv.clean import make_cleaner
from criadero.corpus.sources.arxiv.expand import ExpansionLimit, expand
from criadero.corpus.sources.arxiv.sweave import without_chunks
from criadero.corpus.sources.arxiv.tokens import BLANK, lex, render
from linear_time import is_linear

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "arxiv" / "arXiv_src_0000_001.tar"


def _expanded(text: str) -> str:
    return render(expand(lex(text)))


def _cleaned(text: str, **settings: bool) -> Document | Drop:
    chosen = {"include_abstract": False, "drop_appendix": False, **settings}
    return make_cleaner(**chosen)(Document("1", text, "arxiv"))


def _body(text: str, **settings: bool) -> str:
    found = _cleaned(text, **settings)
    assert isinstance(found, Document)
    return found.text


# The bugs of the public recreations, by their number in the list.


@pytest.mark.parametrize("command", ["paragraph", "subparagraph", "subsection", "subsubsection", "section*"])
def test_bug_1_a_paper_with_one_kind_of_section_only_has_a_body(command: str) -> None:
    text = rf"\documentclass{{a}}\begin{{document}}front \{command}{{T}} body \end{{document}}"
    assert _body(text) == rf"\{command}{{T}} body"


def test_bug_2_a_comment_takes_no_letter_before_it_and_is_seen_after_a_line_break() -> None:
    assert render(lex("price%comment\n  less")) == "priceless"
    assert render(lex("50\\% of\\\\% comment\nit\\\\\\% is\n%\nso %")) == "50\\% of\\\\it\\\\\\% is\nso "


def test_bug_3_values_may_have_any_character() -> None:
    assert (
        _expanded("\\newcommand{\\name}{Erdős \\x \\g<0> \\1 漢}by \\name.") == "by Erdős \\x \\g<0> \\1 漢."
    )


def test_bug_4_macros_side_by_side_and_inside_of_each_other_expand_to_a_fixed_point() -> None:
    assert _expanded(r"\def\foo{x}\foo\foo\foo") == "xxx"
    assert _expanded(r"\newcommand{\a}{\b\b}\newcommand{\b}{\c y}\newcommand{\c}{z}\a") == "zyzy"
    assert _expanded(r"\newcommand{\b}{1}\newcommand{\a}{\b}\renewcommand{\b}{2}\a") == "2"


@pytest.mark.parametrize(
    ("definition", "use", "expected"),
    [
        (r"\newcommand{\p}[2]{<#1|#2>}", r"\p{a}{b} \p ab \p\alpha{c d}", r"<a|b> <a|b> <\alpha|c d>"),
        (r"\newcommand\x{y}", r"\x+\x", "y+y"),
        (r"\newcommand*{\x}{y}", r"\x", "y"),
        (r"\renewcommand{\x}[1]{[#1#1]}", r"\x{\x{1}}", "[[11][11]]"),
        (r"\newcommand{\x}{1}\providecommand{\x}{2}\providecommand{\y}{3}", r"\x\y", "13"),
        (r"\DeclareMathOperator{\tr}{tr}", r"$\tr A$", r"$\operatorname{tr}A$"),
        (r"\DeclareMathOperator*{\am}{arg\,max}", r"\am_x", r"\operatorname*{arg\,max}_x"),
        (r"\DeclareRobustCommand{\x}[1]{(#1)}", r"\x1", "(1)"),
        (r"\newcommand{\old}{o}\let\new=\old\renewcommand{\old}{changed}", r"\new\old", "ochanged"),
        (r"\let\oldvec\vec\renewcommand{\vec}[1]{\mathbf{\oldvec{#1}}}", r"\vec{x}", r"\mathbf{\vec{x}}"),
        ("\\newcommand{\\long}{one\n  two % no\n  three\n}", r"\long", "one\ntwo three"),
        (r"\newcommand{\n}{{\bf {a}} \{ }", r"\n", r"{\bf {a}} \{"),
        (r"\newcommand{\o}[2][d]{(#1,#2)}", r"\o{x} \o[e{]}]{y}", "(d,x) (e{]},y)"),
        (r"\def\f#1#2{#2#1}", r"\f ab\f{1}2", "ba21"),
        (r"\long\def\f#1{#1}\global\def\g{G}", r"\f{x}\g", "xG"),
        (r"\newcommand{\set}[1]{\def\got{#1}\def\twice##1{##1##1}}", r"\set{v}\got\twice w", "vww"),
        (r"\def\({\left(}\def\){\right)}", r"\(x\) y", r"\left(x\right) y"),
        (r"\newcommand{\eg}{e.g.\xspace}", r"\eg this, \eg, \eg{} that", "e.g. this, e.g., e.g. that"),
    ],
)
def test_bug_5_every_kind_of_definition_is_understood_and_removed(
    definition: str, use: str, expected: str
) -> None:
    assert _expanded(definition + use) == expected
    # A line of its own for the definition leaves no paragraph's end behind.
    assert _expanded("before\n" + definition + "\n" + use) == "before\n" + expected


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (r"x^\foo", "x^{ab}"),
        (r"x_\foo^\foo", "x_{ab}^{ab}"),
        (r"\frac\foo\foo", r"\frac{ab}{ab}"),
        (r"\frac{1}\foo \foo", r"\frac{1}{ab}ab"),
        (r"\sqrt[3]\foo", r"\sqrt[3]{ab}"),
        (r"\mathbf \foo", r"\mathbf {ab}"),
        (r"x^\one y^\alpha z^\two", r"x^1y^\alpha z^{ab}"),
        (r"x^\fun{y}", "x^{f(y)}"),
        (r"\left\lb\foo", r"\left\langle ab"),
        (r"x\foo", "xab"),
    ],
)
def test_bug_5_a_value_in_the_place_of_an_argument_stays_one_argument(use: str, expected: str) -> None:
    macros = r"\def\foo{ab}\def\one{1}\def\two{\foo}\def\fun#1{f(#1)}\def\lb{\langle}"
    assert _expanded(macros + use) == expected


def test_bug_8_the_appendix_stays_and_the_bibliography_goes() -> None:
    text = r"""\begin{document}\section{A} a
\begin{thebibliography}{9}\bibitem{x} X \end{thebibliography}
\begin{figure}f\end{figure}
\appendix
\section{B} b
\bibliographystyle{plain}\bibliography{refs}
\end{document} after"""
    assert _body(text) == "\\section{A} a\n\n\\appendix\n\\section{B} b"
    assert _body(text, drop_appendix=True) == "\\section{A} a"


def test_bug_10_a_percent_sign_in_verbatim_text_is_no_comment() -> None:
    for verbatim in (
        r"\verb|50% off|",
        r"\verb*+%+",
        r"\url{http://x.org/a%20b{%}c}",
        r"\href{http://x.org/%7Eme}{me}",
        r"\lstinline[language=C]!a % b!",
        r"\mintinline{python}{a % b}",
        "\\begin{verbatim}\n100% \\foo\n  {\n\\end{verbatim}",
        '\\begin{lstlisting}[language=C]\nprintf("%d\\n"); // }\n\\end{lstlisting}',
        "\\begin{minted}{python}\nx = '%s' % 1\n\\end{minted}",
    ):
        assert _expanded(f"\\def\\foo{{wrong}}a {verbatim} b%c") == f"a {verbatim} b"


def test_the_comment_environment_is_gone_and_verbatim_in_a_definition_is_a_name() -> None:
    assert render(lex("a\n\\begin{comment}\n%x\n\\section{no}\n\\end{comment}\nb")) == "a\nb"
    text = "\\newenvironment{small}{\\begin{alltt}\\small}{\\end{alltt}}\n% gone\nkept \\verb|%|"
    assert "gone" not in render(lex(text))


def test_a_comment_before_a_blank_line_does_not_join_paragraphs() -> None:
    assert render(lex("one % c\n\n two\n% c\n\nthree\n  % c\nfour")) == "one\n\ntwo\n\nthree\nfour"


def test_a_control_word_never_grows_into_what_follows() -> None:
    assert _expanded(r"\def\al{\alpha}\def\h#1{\hat#1}\al b \h c \al{}d") == r"\alpha b \hat c \alpha{}d"
    assert render(lex("\\foo% comment\nbar")) == "\\foo bar"


def test_blanks_after_a_macro_without_arguments_are_swallowed_but_no_paragraph_ends() -> None:
    assert _expanded("\\def\\x{y}\\x  z\\x\nw\\x\n\nv\\x{} u") == "yzyw" + "y\n\nvy u"


def test_definitions_end_with_their_group_unless_they_are_global() -> None:
    assert _expanded(r"\def\a{1}{\def\a{2}\gdef\b{3}\a}\a\b") == "{2}13"


def test_macros_in_a_circle_are_left_and_everything_else_expands() -> None:
    assert _expanded(r"\def\a{\b}\def\b{\a}\def\c{x}\c\a\c") == r"x\a x"
    assert _expanded(r"\newcommand{\E}{\mathbb{E}\br}\newcommand{\br}[1]{[#1]}\E{\E{x}}") == (
        r"\mathbb{E}[\mathbb{E}[x]]"
    )


def test_programs_are_not_run_and_structure_keeps_its_meaning() -> None:
    text = r"\def\t#1{\ifx#1\empty no\else yes\fi}\t{x}\renewcommand{\section}[1]{{\bf #1}}\section{S}"
    assert _expanded(text) == r"\t{x}\section{S}"
    assert _expanded(r"\makeatletter\def\my@x{1}\def\y{\my@x}\makeatother\y") == (
        "\\makeatletter\\makeatother\\y"
    )
    assert _expanded(r"\def\d#1.{<#1>}\d ab.") == r"\d ab."


@pytest.mark.parametrize(
    "text",
    [
        r"\newcommand{\x",
        r"\newcommand{\x}[q]{y}\x",
        r"\newcommand",
        r"\def",
        r"\def\x",
        r"\def\x#1{",
        r"\let\x",
        r"\newcommand{\f}[1][",
        r"}}}\def\x{y}\x",
        r"\DeclareMathOperator{\x}",
        "\\",
        "#1##2",
        r"\verb",
        r"\url{",
        r"\begin{verbatim}",
    ],
)
def test_broken_latex_is_left_as_it_is(text: str) -> None:
    again = _expanded(text)
    assert again == _expanded(again)
    if "y}" not in text:
        assert again == text


def test_a_macro_without_its_argument_is_left() -> None:
    assert _expanded(r"\def\f#1{x}{\f}\f") == r"{\f}\f"
    assert _expanded("\\def\\f#1{<#1>}\\f\n\n a \\f\n b") == "\\f\n\na <b>"


def test_an_argument_that_passes_through_other_macros_expands_like_any_text() -> None:
    macros = r"\newcommand{\norm}[1]{\wrap{#1}}\newcommand{\wrap}[1]{|#1|}"
    assert _expanded(macros + r"\norm{\norm{x}\wrap{\norm{y}}}") == "||x|||y|||"


def test_a_paper_whose_macros_never_end_is_dropped() -> None:
    for bomb in (
        r"\def\a#1{\b{#1#1}}\def\b#1{\c{#1#1}}\def\c#1{#1#1#1#1}" + r"\a{\a{\a{\a{\a{\a{x}}}}}}",
        r"\def\x{\y}\def\y#1{#1#1}\x\x",
        "".join(rf"\def\a{chr(97 + n)}{{\a{chr(98 + n)}}}" for n in range(20)) + r"\aa",
    ):
        with pytest.raises(ExpansionLimit):
            expand(lex(bomb))
        found = _cleaned(r"\section{A}" + bomb)
        assert isinstance(found, Drop)
        assert found.reason == "expansion_limit"


def test_a_paper_without_sections_is_dropped() -> None:
    found = _cleaned(r"\documentclass{a}\titleformat{\section}{}\begin{document}text\end{document}")
    assert isinstance(found, Drop)
    assert found.reason == "no_section"


def test_the_body_begins_at_the_first_section_or_at_the_abstract_if_asked() -> None:
    text = r"""\documentclass{a}\titleformat{\section}{x}
\begin{document}\maketitle\begin{abstract}short\end{abstract}\subsection{early}\section{A} a\end{document}"""
    assert _body(text) == r"\section{A} a"
    assert _body(text, include_abstract=True).startswith("\\begin{abstract}short")


def test_code_of_sweave_chunks_is_verbatim_unless_it_is_not_shown() -> None:
    text = """\\SweaveOpts{engine=R}
A
<<echo=FALSE, results=hide>>=
secret(1) # 100%
@
B
<<label, fig=TRUE>>=
x <- 5 %% 2
@ %def
C \\Sexpr{x}
\\SweaveOpts{echo = FALSE}
<<>>=
hidden
@
<<echo=TRUE>>=
open"""
    expected = "A\nB\n\\begin{verbatim}\nx <- 5 %% 2\n\\end{verbatim}\nC \\Sexpr{x}\n"
    assert without_chunks(text).lstrip("\n") == expected + "\n\\begin{verbatim}\nopen\n\\end{verbatim}"


# Real papers.


def _papers() -> dict[str, str]:
    found = {}
    for name, stream in archive.papers(SAMPLE):  # type: ignore[misc]
        project = archive.unpack(name, stream)
        assert isinstance(project, archive.Project)
        (data,) = project.files.values()
        found[name] = without_chunks(data.decode("latin-1"))
    return found


def _meaning(tokens: list[str]) -> list[str]:
    """Return commands and letters: without blanks, and without braces, which ours adds round values."""
    kept = [token for token in tokens if token[0] not in BLANK and token not in "{}"]
    return [letter for t in kept for letter in ([t] if t[0] == "\\" else t.replace(" ", ""))]


def test_macros_of_real_papers_expand_as_pylatexencs_parser_reads_them() -> None:
    macros = 0
    for name, source in _papers().items():
        # Of listings it knows `verbatim` by name; an environment's definition it takes for the environment.
        text = re.sub(r"\{(Sinput|Soutput)\}", "{verbatim}", source).replace("{Schunk}", "{chunk}")
        text = re.sub(r"\\newenvironment\{.*", "", text).partition("\\end{document}")[0] + "\\end{document}"
        macros += text.count("\\newcommand") + text.count("\\renewcommand")
        cut = {"include_abstract": False, "drop_appendix": False}
        ours = cut_body(expand(lex(text)), **cut)
        theirs = cut_body(lex(latex_oracle.expand(text)), **cut)
        assert ours is not None
        assert theirs is not None
        assert _meaning(ours) == _meaning(theirs), name
    assert macros > 150


# Any text at all.

_WORDS = r"""
    \def\a{ \def\b#1 \newcommand{\c}[2][x]{ \let\d=\a \a \b \c \d { } [ ] ^ _ #1 #2 % ab $ | \verb|
    \section{T} \begin{verbatim} \end{verbatim} \begin{comment} \end{comment} \frac \url{ \begin{document}
    \end{document} \appendix \bibliography{b} \xspace \ \@ \makeatletter \makeatother @x é
"""
_LATEX = st.lists(
    st.sampled_from([*_WORDS.split(), "\n", "\n\n", " ", "\r", "\x0b", "\u2028"]), max_size=40
).map("".join)


@given(_LATEX | st.text())
@example("\\section{\\verb|\\section")
def test_no_text_is_a_fault_and_cleaning_is_idempotent(text: str) -> None:
    once = render(lex(text))
    assert render(lex(once)) == once
    for paper in (text, "\\section{A}" + text):
        cleaned = _cleaned(paper)
        if isinstance(cleaned, Document):
            assert _cleaned(cleaned.text) == cleaned


def test_cleaning_real_papers_again_changes_nothing() -> None:
    for text in _papers().values():
        once = _body(text)
        assert _body(once) == once
        assert len(once) > 10_000


_UNITS = r"""
    \ { } \def\a{\a} \def\a#1{#1}\a{ \newcommand{\x}{ % \verb| \url{ \begin{verbatim} \begin{comment} \frac ^
    \[ $ \iffalse {\def\a{1} \lstinline \section{ \bibliography a [ \sqrt[ \gdef\b{1}{ #1
"""


@pytest.mark.parametrize("unit", [*_UNITS.split(), "% a\n", "\\a\n\n", " ", "\n"])
def test_twice_the_length_takes_less_than_three_times_as_long(unit: str) -> None:
    assert is_linear(_cleaned, lambda count: r"\section{A}" + unit * count, 60_000 // len(unit) + 1000)
