"""Limits of a corpus build: memory, time for one document, how much may go wrong."""

from __future__ import annotations

from pydantic import Field

from criadero.config import Config


class EngineConfig(Config):
    """Limits that decide when something is given up, never what is written.

    Attributes:
        memory_bytes: what all workers together may use.
        document_seconds: how long one document may take in one task before its worker is killed; loading
            models, writing and deciding may take ten times as long.
        max_quarantined: documents of one source that may be set aside before the run ends with an error.
    """

    memory_bytes: int = Field(default=4 << 30, ge=256 << 20)
    document_seconds: float = Field(default=300.0, gt=0)
    max_quarantined: int = Field(default=100, ge=0)
