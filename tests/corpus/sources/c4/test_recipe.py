"""The recipes whole: released files as they are, and the steps from WET."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from criadero.corpus.engine.inline import run_inline
from criadero.corpus.sources.c4.recipe import C4Config, stages
from criadero.errors import DataError

RAW = Path(__file__).parents[4] / "samples" / "raw"
PROSE = "It was a fine day in the town. All of the people were out. They went to see the {} at the river."


def record(number, url, text, date="2019-04-24T09:23:58Z"):
    body = text.encode()
    head = (
        f"WARC/1.0\r\nWARC-Type: conversion\r\nWARC-Target-URI: {url}\r\nWARC-Date: {date}\r\n"
        f"WARC-Record-ID: <urn:uuid:{number:032}>\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + body + b"\r\n\r\n")


def run(config, *inputs):
    return run_inline(stages(config, source="c4", inputs=inputs))


def test_the_release_is_read_as_it_is():
    result = run(C4Config(), RAW / "c4")
    assert len(result.documents) == 300
    assert result.documents[6].id == "c4/c4-demo.json.gz:7"
    assert {row.stage for row in result.ledger} == {"read"}


def test_released_records_keep_address_and_date(tmp_path):
    path = tmp_path / "c4-train.00000-of-01024.json.gz"
    page = {"text": "Some text.", "timestamp": "2019-04-24T09:23:58Z", "url": "http://a.example/"}
    path.write_bytes(gzip.compress((json.dumps(page) + "\n").encode()))
    (document,) = run(C4Config(), path).documents
    assert document.metadata == {"timestamp": page["timestamp"], "url": page["url"]}
    assert document.id == "c4-train.00000-of-01024.json.gz:1"


def test_a_cut_release_file_costs_what_is_lost_and_is_named(tmp_path):
    whole = (RAW / "c4" / "c4-demo.json.gz").read_bytes()
    path = tmp_path / "cut.json.gz"
    path.write_bytes(whole[: len(whole) // 2])
    result = run(C4Config(), path)
    assert 100 < len(result.documents) < 200
    assert [(row.id, row.reason) for row in result.ledger if row.outcome == "bad"] == [
        ("cut.json.gz", "unreadable")
    ]


def test_pages_from_wet_meet_every_step(tmp_path):
    pages = [
        ("https://www.a.example/1/", PROSE.format("boats")),
        ("http://a.example/1?utm_source=x", PROSE.format("old boats")),
        ("http://a.example/2", "lorem ipsum dolor sit amet.\n" + PROSE.format("x")),
        ("http://a.example/3", "x" * 190_001),
        ("http://a.example/4", "Home\nLogin\nToo few here to make it."),
        ("http://a.example/5", PROSE.format("boats") + "\nOne more line is here."),
        (
            "http://a.example/6",
            "Das ist ein guter Tag in der Stadt. Alle Leute waren da. Sie gingen an den Fluss.",
        ),
        ("http://a.example/7", PROSE.format("rude boats")),
        ("http://a.example/8", PROSE.format("swans") + "\nHome | Login"),
    ]
    dates = ["2019-04-24T10:00:00Z"] + ["2019-04-24T09:00:00Z"] * 8
    archive = b"".join(
        record(n, *page, date) for n, (page, date) in enumerate(zip(pages, dates, strict=True))
    )
    (tmp_path / "one.warc.wet.gz").write_bytes(archive)
    words = tmp_path / "list.txt"
    words.write_text("rude\n")
    result = run(C4Config(made_from="wet", bad_words=words), tmp_path / "one.warc.wet.gz")
    assert Counter((row.stage, row.reason) for row in result.ledger if row.outcome == "dropped") == {
        ("page", "too_long"): 1,
        ("url_dedup", "duplicate_url"): 1,
        ("clean", "lorem_ipsum"): 1,
        ("clean", "too_few_sentences"): 1,
        ("line_dedup", "only_duplicate_lines"): 1,
        ("language", "other_language"): 1,
        ("bad_words", "bad_word"): 1,
    }
    # Of the two pages with the same line the address of the second has the smaller md5.
    boats = PROSE.format("boats") + "\nOne more line is here."
    assert [d.text for d in result.documents] == [boats, PROSE.format("swans")]
    assert result.documents[1].metadata["url"] == "http://a.example/8"
    assert result.documents[1].metadata["subset"] == "train"


def test_real_pages_from_wet_come_through():
    result = run(C4Config(made_from="wet"), RAW / "commoncrawl" / "tutorial.warc.wet.gz")
    assert len(result.documents) > 10
    assert all("{" not in d.text for d in result.documents)
    lines = [line.lower() for d in result.documents for line in d.text.split("\n")]
    assert len(lines) == len(set(lines))


def test_a_cut_archive_costs_its_last_record(tmp_path):
    whole = (RAW / "commoncrawl" / "tutorial.warc.wet.gz").read_bytes()
    path = tmp_path / "cut.warc.wet.gz"
    path.write_bytes(whole[: len(whole) // 2])
    result = run(C4Config(made_from="wet"), path)
    assert result.documents
    assert [row.outcome for row in result.ledger if row.stage == "read"].count("bad") == 1


def test_a_list_without_effect_and_a_missing_list_are_said_once(caplog, tmp_path):
    words = tmp_path / "list.txt"
    words.write_text("rude\n")
    stages(C4Config(bad_words=words), source="c4", inputs=[RAW / "c4"])
    stages(C4Config(made_from="wet"), source="c4", inputs=[RAW / "commoncrawl"])
    assert ["no effect" in m or "names no list" in m for m in caplog.messages] == [True, True]


def test_a_missing_list_or_input_is_an_error(tmp_path):
    with pytest.raises(DataError, match="list of bad words"):
        stages(
            C4Config(made_from="wet", bad_words=tmp_path / "no"), source="c4", inputs=[RAW / "commoncrawl"]
        )
    with pytest.raises(DataError, match="does not exist"):
        stages(C4Config(), source="c4", inputs=[tmp_path / "no"])
    with pytest.raises(DataError, match="nothing to read"):
        stages(C4Config(), source="c4", inputs=[tmp_path])
