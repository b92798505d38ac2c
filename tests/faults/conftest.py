"""What the tests of faults share."""

from __future__ import annotations

import logging

import pytest
import torch

from faults.uncut import uncut, uncut_folder

__all__ = ["uncut", "uncut_folder"]


@pytest.fixture(autouse=True)
def _same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread; and what the library logs reaches caplog, whatever an earlier test did to its logger."""
    torch.set_num_threads(1)  # as in the processes that are compared with
    monkeypatch.setattr(logging.getLogger("criadero"), "propagate", True)
