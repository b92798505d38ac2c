"""Only files under a licence that was asked for: by their own header, else by their repository.

Entry point: `make_permission`. A file whose header names a licence of another kind goes, however its
repository is licensed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence

from criadero.corpus.document import Document, Drop
from criadero.corpus.engine.stage import DocumentFunction
from criadero.corpus.sources.github import licence
from criadero.corpus.sources.github.header import leading_comments


def make_permission(*, allowed: Sequence[str]) -> DocumentFunction:
    """Return the function that keeps files whose licence can be met with `allowed` ones alone.

    Drops `file_license` for a file whose header says otherwise, `unknown_licence` where nothing says
    anything, `licence` for all others, with the licence as detail.
    """
    names = frozenset(allowed)

    def keep(document: Document) -> Document | Drop:
        # differs from paper: it judged projects; here the header of a file overrules its project.
        comments = leading_comments(document.text, document.metadata["language"])
        if (own := licence.of_header(comments)) is not None:
            if not licence.allows(own, names):
                return Drop("file_license", detail=own[:200])
            return document.with_metadata(licence=own, licence_from="spdx_line")
        if (other := licence.named_otherwise(comments)) is not None:
            return Drop("file_license", detail=other)
        expression = document.metadata["licence"]
        if not expression:
            return Drop("unknown_licence")
        return document if licence.allows(expression, names) else Drop("licence", detail=expression[:200])

    return keep
