"""HTML whose text would take an attacker's time and memory: elements nested without end.

Entry point: `fault`, asked before resiliparse extracts a text. Its time grows with the cube of nested blocks
when it looks for the main content, and each item of a list is indented as deep as the list is nested.
"""

from __future__ import annotations

import re

# Browsers stop at 512; conversations in lists within lists have some dozens.
MAX_BLOCKS = 500
MAX_LISTS = 64
_BLOCK = re.compile(r"<(/?)(?:div|article|section)\b", re.IGNORECASE)
_LIST = re.compile(r"<(/?)[uo]l\b", re.IGNORECASE)


def fault(html: str) -> str:
    """Return what is nested too deeply in a page, nothing for any other page."""
    if _is_deeper(html, _BLOCK, MAX_BLOCKS):
        return f"blocks nested more than {MAX_BLOCKS} deep"
    return f"lists nested more than {MAX_LISTS} deep" if _is_deeper(html, _LIST, MAX_LISTS) else ""


def _is_deeper(html: str, tag: re.Pattern[str], most: int) -> bool:
    closing = tag.findall(html)
    if len(closing) <= most:
        return False
    depth = 0
    for slash in closing:
        depth = max(0, depth - 1) if slash else depth + 1
        if depth > most:
            return True
    return False
