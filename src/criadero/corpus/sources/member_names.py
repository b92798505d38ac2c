"""Names of members of archives, which may be anything.

Entry point: `is_inside`, asked by every reader of archives before it takes a member.
"""

from __future__ import annotations


def is_inside(name: str) -> bool:
    """Tell whether a member's name stays below the folder it would be unpacked to, on any system.

    Names that are not UTF-8, in which Python holds half surrogate pairs, are refused too.
    """
    parts = name.replace("\\", "/").split("/")
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return bool(parts[0]) and ".." not in parts and ":" not in parts[0] and "\0" not in name
