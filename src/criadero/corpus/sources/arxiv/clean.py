"""A paper's LaTeX as the text that is learned from: macros expanded, body only.

Entry point: `make_cleaner`, a pure function over the documents of `criadero.corpus.sources.arxiv.read`.
"""

from __future__ import annotations

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.sources.arxiv.body import cut_body
from criadero.corpus.sources.arxiv.expand import ExpansionLimit, expand
from criadero.corpus.sources.arxiv.tokens import lex, render


def make_cleaner(*, include_abstract: bool, drop_appendix: bool) -> DocumentFunction:
    """Return the function that makes text of a paper, or drops it (`expansion_limit`, `no_section`).

    Args:
        include_abstract: begin at the abstract where there is one, not at the first section.
        drop_appendix: end at the first appendix, as RedPajama does.
    """

    def clean(document: Document) -> Document | Drop:
        try:
            tokens = expand(lex(document.text))
        except ExpansionLimit as problem:
            return Drop("expansion_limit", detail=str(problem))
        body = cut_body(tokens, include_abstract=include_abstract, drop_appendix=drop_appendix)
        if body is None:
            return Drop("no_section")
        return document.with_text(render(body).strip())

    return clean
