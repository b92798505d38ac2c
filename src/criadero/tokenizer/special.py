"""Which spellings are control tokens, wherever they are stored.

Some vocabularies mark their chat tokens as ordinary text; a user could then type them. Everything here is
treated as control, so no text ever produces it.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(
    r"<\|[^\s<>|]{1,60}\|>|</?s>|<(?:pad|bos|eos|mask|start_of_turn|end_of_turn)>|\[/?INST\]"
)


def is_control_name(name: str) -> bool:
    """Tell whether a token of this name steers a model rather than standing for text."""
    return _CONTROL.fullmatch(name) is not None
