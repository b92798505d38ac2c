r"""Sweave: chunks of R code in a LaTeX file, as LaTeX shows them.

Entry point: `without_chunks`. A chunk begins with `<<options>>=` on a line and ends with `@` on one. Sweave
prints its code as it stands, unless `echo=FALSE`; what the code prints is not in the source and so not here.
"""

from __future__ import annotations

import re

SUFFIXES = (".rnw", ".snw")
_BEGIN = re.compile(r"<<([^\n]*)>>=[ \t]*$")
_ECHO = re.compile(r"\becho[ \t]*=[ \t]*(TRUE|FALSE|T|F)\b", re.IGNORECASE)
_OPTIONS = re.compile(r"\\SweaveOpts\{([^{}]*)\}")


def without_chunks(text: str) -> str:
    """Return the file with code that is shown as `verbatim`, code that is not shown removed."""
    shown = True
    lines: list[str] = []
    inside = False  # of a chunk
    echo = True
    for line in text.splitlines():
        if not inside:
            begins = _BEGIN.match(line)
            if begins is None:
                options = _OPTIONS.search(line) if "\\SweaveOpts" in line else None
                shown = _echo(options[1], shown) if options else shown
                lines.append(_OPTIONS.sub("", line) if options else line)
                continue
            inside, echo = True, _echo(begins[1], shown)
            if echo:
                lines.append("\\begin{verbatim}")
        elif line.startswith("@"):
            inside = False
            if echo:
                lines.append("\\end{verbatim}")
        elif echo:
            lines.append(line)
    if inside and echo:
        lines.append("\\end{verbatim}")
    return "\n".join(lines)


def _echo(options: str, default: bool) -> bool:
    found = _ECHO.search(options)
    return default if found is None else found[1].upper().startswith("T")
