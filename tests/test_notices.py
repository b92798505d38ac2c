"""A notice is said once."""

from __future__ import annotations

import logging

import pytest

from criadero import notices


def test_the_same_words_are_said_once_and_other_words_again(monkeypatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(notices, "_said", set())
    with caplog.at_level(logging.WARNING, "criadero"):
        for text in ("no GPU", "no compiler", "no GPU"):
            notices.say_once(text)
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("WARNING", "no GPU"),
        ("WARNING", "no compiler"),
    ]
