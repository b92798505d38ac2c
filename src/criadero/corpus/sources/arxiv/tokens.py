r"""TeX as tokens: what a scanner with TeX's own rules sees, and text again.

Entry points: `lex` and `render`. A token is a string: a control sequence with its backslash, one of
`{ } [ ] ^ _`, a parameter `#1`, a run of blanks, a run of other text, or something verbatim as a whole
(`\verb|%|`, `\url{a%b}`, a `verbatim` environment). Comments are no tokens: a `%` takes the rest of its line,
the line end and the blanks after it along, but never a paragraph's end.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

_REST = r"|\\[^a-zA-Z]|[{}\[\]^_]|#+[1-9]?|[ \t\n]+|%|[^\\{}\[\]^_#% \t\n][^\\{}\[\]^_#%\n]*|\\"
_TOKEN = re.compile(r"\\[a-zA-Z]+" + _REST, re.DOTALL)
_TOKEN_AT_LETTER = re.compile(r"\\[a-zA-Z@]+" + _REST, re.DOTALL)
_ENVIRONMENT = re.compile(r"[ \t]*\{([a-zA-Z]+\*?)\}")
_VERB = {
    "\\verb": re.compile(r"\*?([^a-zA-Z*\s])"),
    "\\lstinline": re.compile(r"(?:\[[^\]\n]{0,500}\])?([^a-zA-Z*\s\[])"),
    "\\mintinline": re.compile(r"(?:\[[^\]\n]{0,500}\])?\{[a-zA-Z0-9+-]{1,40}\}([^a-zA-Z*\s])"),
}
_URL_COMMANDS = frozenset({"\\url", "\\path", "\\nolinkurl", "\\href"})
_URL_STEP = re.compile(r"\\(.)|[{}]", re.DOTALL)
_VERBATIM = frozenset(
    {"verbatim", "verbatim*", "Verbatim", "Verbatim*", "BVerbatim", "LVerbatim", "SaveVerbatim", "alltt"}
    | {"lstlisting", "minted", "filecontents", "filecontents*", "Code", "CodeInput", "CodeOutput"}
    | {"Sinput", "Soutput", "Scode", "Schunk"}
)
# Longer than any that is meant; without it, each one that never ends would be read to the end of the file.
_MAX_INLINE = 4096

BLANK = frozenset(" \t\n")
_LETTERS = frozenset(string.ascii_letters)


def lex(text: str) -> list[str]:
    """Return the tokens of TeX source, without comments and `comment` environments."""
    return _Lexer(text).tokens()


def render(tokens: Sequence[str]) -> str:
    r"""Return source with the tokens given: `lex` of it finds them again.

    Blanks are one space, one line end or one blank line, and none at the end; a space keeps a control word
    from growing into the letters that follow.
    """
    parts: list[str] = []
    owed = 0  # 1 space, 2 line end, 3 paragraph
    after_word = False
    for token in tokens:
        if token[0] in BLANK:
            owed = max(owed, 3 if is_paragraph(token) else 1 + ("\n" in token))
            continue
        if owed:
            if owed > 1 and parts and parts[-1][0] != "\\":
                parts[-1] = parts[-1].rstrip(" \t")
            parts.append(("", " ", "\n", "\n\n")[owed])
            owed = 0
        elif after_word and token[0] in _LETTERS:
            parts.append(" ")
        parts.append(token)
        after_word = is_word(token)
    return "".join(parts)


def is_word(token: str) -> bool:
    r"""Return whether the token is a control word, such as `\alpha`, and not a symbol, such as `\%`."""
    return token[0] == "\\" and (token[-1] in _LETTERS or (token[-1] == "@" and len(token) > 2))


def is_paragraph(token: str) -> bool:
    """Return whether a run of blanks ends a paragraph."""
    return token.count("\n") > 1


def environment_at(tokens: Sequence[str], index: int) -> str:
    r"""Return NAME where `\begin{NAME}` or `\end{NAME}` is at `index`, or an empty string."""
    named = tokens[index + 1 : index + 4]
    return named[1] if len(named) == 3 and named[0] == "{" and named[2] == "}" else ""


def _closes_too_much(line: str) -> bool:
    r"""Return whether a brace closes that was open before, as behind `\begin{verbatim}` in a definition."""
    if "}" not in line:
        return False
    depth = 0
    for letter in line:
        depth += (letter == "{") - (letter == "}")
        if depth < 0:
            return True
    return False


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._never_ends: set[str] = set()  # environments that are not closed any more

    def tokens(self) -> list[str]:
        text, pattern, found, position = self._text, _TOKEN, list[str](), 0
        while match := pattern.match(text, position):
            token, position = match[0], match.end()
            if token == "%":
                position = self._after_comment(position)
                continue
            if token[0] == "\\" and len(token) > 4:
                if token == "\\begin":
                    end = self._environment_end(position)
                    if end > position:
                        if not text.startswith("{comment}", position):
                            found.append(text[match.start() : end])
                        position = end
                        continue
                elif token in _VERB:
                    position = self._verb_end(token, position)
                elif token == "\\makeatletter":
                    pattern = _TOKEN_AT_LETTER
                elif token == "\\makeatother":
                    pattern = _TOKEN
            if token in _URL_COMMANDS:
                position = self._url_end(position)
            found.append(text[match.start() : position])
        return found

    def _after_comment(self, position: int) -> int:
        """Return where reading goes on: at the next line's first letter, or at the end of a paragraph."""
        text = self._text
        line_end = text.find("\n", position)
        if line_end < 0:
            return len(text)
        position = line_end + 1
        while position < len(text) and text[position] in " \t":
            position += 1
        return line_end if position == len(text) or text[position] == "\n" else position

    def _environment_end(self, position: int) -> int:
        """Return the end of a verbatim or comment environment that begins here, else `position`."""
        name = _ENVIRONMENT.match(self._text, position)
        if name is None or (name[1] not in _VERBATIM and name[1] != "comment"):
            return position
        if name[1] in self._never_ends:
            return position
        closing = f"\\end{{{name[1]}}}"
        end = self._text.find(closing, name.end())
        if end < 0:
            self._never_ends.add(name[1])
            return position
        line_end = self._text.find("\n", name.end(), end)
        line = self._text[name.end() : end if line_end < 0 else line_end]
        return position if _closes_too_much(line) else end + len(closing)

    def _verb_end(self, token: str, position: int) -> int:
        opening = _VERB[token].match(self._text, position)
        if opening is None:
            return position
        closing = "}" if opening[1] == "{" else opening[1]
        limit = opening.end() + _MAX_INLINE
        end = self._text.find(closing, opening.end(), limit)
        inside = self._text.find("\n", opening.end(), limit if end < 0 else end)
        return end + 1 if end >= 0 > inside else position

    def _url_end(self, position: int) -> int:
        text, depth, start = self._text, 0, position
        while position < len(text) and text[position] in " \t":
            position += 1
        if not text.startswith("{", position):
            return start
        for match in _URL_STEP.finditer(text, position, position + _MAX_INLINE):
            if match[1] is not None and match[1] in _LETTERS:
                return start  # a macro is in it, so it is no plain address
            depth += {"{": 1, "}": -1}.get(match[0], 0)
            if depth == 0:
                return match.end()
        return start
