"""What is said once: a setting without effect, a fallback taken. Goes to the log, never to stdout."""

from __future__ import annotations

import logging

logger = logging.getLogger("criadero")
_said: set[str] = set()


def say_once(text: str, *, level: int = logging.WARNING) -> None:
    """Log `text`, by default as a warning, the first time this process says it."""
    if text not in _said:
        _said.add(text)
        logger.log(level, text)
