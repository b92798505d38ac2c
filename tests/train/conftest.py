"""What the tests of training share."""

from __future__ import annotations

from faults.uncut import uncut, uncut_folder

__all__ = ["uncut", "uncut_folder"]
