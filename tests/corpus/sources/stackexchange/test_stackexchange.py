"""StackExchange from Posts.xml to text: sites, joins, order of answers, layouts, what hostile dumps cost."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import py7zr
import pytest

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.inline import InlineResult, run_inline
from criadero.corpus.sources.stackexchange import dump, posts, recipe, threads
from criadero.corpus.sources.stackexchange.dump import Site, find_sites, largest_sites
from criadero.corpus.sources.stackexchange.recipe import StackExchangeConfig, stages
from criadero.errors import DataError
from linear_time import is_linear
from stackexchange_dumps import HEAD, TAIL, answer, question, row, write

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "stackexchange"


def _run(*inputs: Path, **settings: object) -> InlineResult:
    return run_inline(stages(StackExchangeConfig(**settings), source="stackexchange", inputs=inputs))


def _texts(*inputs: Path, **settings: object) -> dict[str, str]:
    return {document.id: document.text for document in _run(*inputs, **settings).documents}


def _bad(result: InlineResult) -> list[tuple[str, str]]:
    return [(row.id, row.reason) for row in result.ledger if row.outcome == "bad"]


def test_answers_are_ordered_by_integer_score_not_by_its_spelling(tmp_path: Path) -> None:
    scores = ["10", "-1", "9", "100", "0", "-20"]
    rows = [question(1), *(answer(10 + n, 1, score) for n, score in enumerate(scores))]
    (document,) = _run(write(tmp_path, rows)).documents
    assert [line.split()[-1] for line in document.text.split("\n\n")[2:]] == [
        "100",
        "10",
        "9",
        "0",
        "-1",
        "-20",
    ]
    assert document.metadata["answer_ids"] == "13,10,12,14,11,15"


def test_the_accepted_answer_is_first_among_equal_scores_then_date_then_id(tmp_path: Path) -> None:
    rows = [
        question(1, AcceptedAnswerId=15),
        answer(11, 1, 5, CreationDate="2021-01-01"),
        answer(12, 1, 5, CreationDate="2020-01-01"),
        answer(14, 1, 5, CreationDate="2020-01-01"),
        answer(15, 1, 5, CreationDate="2022-01-01"),
        answer(16, 1, 6, CreationDate="2023-01-01"),
    ]
    (document,) = _run(write(tmp_path, rows)).documents
    assert document.metadata["answer_ids"] == "16,15,12,14,11"


def test_a_question_without_a_title_is_its_body_and_answers(tmp_path: Path) -> None:
    site = write(tmp_path, [question(1, "<p>body</p>", Title=None), answer(2, 1, 3, "<p>reply</p>")])
    assert _texts(site) == {"test.example:1": "body\n\nreply"}
    assert _texts(site, layout="redpajama") == {"test.example:1": "Q: body\nA: reply"}


def test_orphan_answers_are_bad_records_and_cost_nothing_else(tmp_path: Path) -> None:
    rows = [answer(3, 999, 1), question(1), row(Id=4, PostTypeId=2, Score=1, Body="x"), answer(2, 1)]
    result = _run(write(tmp_path, rows))
    assert [document.id for document in result.documents] == ["test.example:1"]
    assert sorted(_bad(result)) == [("test.example:3", "orphan_answer"), ("test.example:4", "orphan_answer")]


def test_rows_that_are_no_posts_and_ids_met_twice_are_bad_records(tmp_path: Path) -> None:
    rows = [
        question(1),
        question(1, Title="again"),
        answer(2, 1),
        answer(2, 1, 9),
        row(PostTypeId=1, Score=1),
        question(7, Score="1e3"),
        question(8, Score="²"),
        answer("9" * 5000, 1),
    ]
    result = _run(write(tmp_path, rows))
    assert [(d.id, d.metadata["answer_ids"]) for d in result.documents] == [("test.example:1", "2")]
    reasons = sorted(reason for _, reason in _bad(result))
    assert reasons == ["bad_row"] * 4 + ["duplicate_id"] * 2


def test_tag_wikis_and_other_posts_neither_count_nor_appear(tmp_path: Path) -> None:
    wikis = [row(Id=10 + n, PostTypeId=4 + n % 4, Score=0, Body="wiki") for n in range(20)]
    write(tmp_path, [*wikis, question(1)], site="wikis.example")
    write(tmp_path, [question(1), answer(2, 1)], site="posts.example")
    write(tmp_path, [question(1), question(2), question(3)], site="most.example")
    assert [dump.count_posts(site) for site in find_sites([tmp_path])] == [3, 2, 1]
    names = [
        split.name
        for split in stages(StackExchangeConfig(largest_sites=2), source="s", inputs=[tmp_path])[0].splits
    ]
    assert names == ["most.example", "posts.example"]
    assert "wiki" not in " ".join(_texts(tmp_path).values())


def test_sites_can_be_named_and_are_not_counted_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.example", "b.example", "c.example"):
        write(tmp_path, [question(1)], site=name)
    monkeypatch.setattr(dump, "count_posts", lambda site: pytest.fail("counted"))
    settings = StackExchangeConfig(sites=("c.example", "a.example"), largest_sites=1)
    read = stages(settings, source="s", inputs=[tmp_path])[0]
    assert [split.name for split in read.splits] == ["a.example", "c.example"]
    with pytest.raises(DataError, match="no posts of the site"):
        stages(StackExchangeConfig(sites=("d.example",)), source="s", inputs=[tmp_path])


def test_meta_sites_are_left_out_and_equal_sizes_go_by_name(tmp_path: Path) -> None:
    for site in ("b.example", "meta.b.example", "cooking.meta.example", "metafilter.example", "a.example"):
        write(tmp_path, [question(1)], site=site)
    sites = find_sites([tmp_path])
    assert [site.name for site in sites] == ["a.example", "b.example", "metafilter.example"]
    assert [site.name for site in largest_sites(sites, 2)] == ["a.example", "b.example"]


def test_a_site_that_is_there_twice_or_nothing_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no posts in"):
        find_sites([tmp_path])
    site = write(tmp_path, [question(1)])
    (tmp_path / "test.example.7z").write_bytes(b"")
    with pytest.raises(DataError, match=r"test\.example is there twice"):
        find_sites([tmp_path])
    with pytest.raises(DataError, match="does not exist"):
        find_sites([site / "missing"])


def _archive(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    with py7zr.SevenZipFile(folder / name, "w") as archive:
        for member, data in members.items():
            archive.writestr(data, member)
    return folder / name


def test_archives_of_a_site_and_of_its_posts_alone_read_like_an_extracted_folder(tmp_path: Path) -> None:
    rows = [question(n, f"<p>body {n}</p>" * 500) for n in range(1, 400)] + [answer(1000, 3, 7)]
    data = HEAD + b"".join(rows) + TAIL
    extracted = _texts(write(tmp_path, rows, site="s.example"))
    assert len(extracted) == 399
    archives = tmp_path / "archives"
    archives.mkdir()
    whole = {"Users.xml": b"<users />", "Posts.xml": data, "Votes.xml": b"<votes />"}
    assert _texts(_archive(archives, "s.example.7z", whole)) == extracted
    (archives / "s.example.7z").unlink()
    _archive(archives, "s.example-Posts.7z", {"Posts.xml": data})
    _archive(archives, "s.example-Users.7z", {"Users.xml": b"<users />"})
    assert _texts(archives) == extracted
    assert sorted(path.name for path in archives.iterdir()) == ["s.example-Posts.7z", "s.example-Users.7z"]


def test_a_damaged_archive_keeps_the_rows_before_the_fault(tmp_path: Path) -> None:
    rows = [question(n, f"<p>{n * 7919} body {n}</p>") for n in range(1, 2000)]
    path = _archive(tmp_path, "s.example.7z", {"Posts.xml": HEAD + b"".join(rows) + TAIL})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    result = _run(path)
    assert [reason for _, reason in _bad(result)][-1] in {"bad_archive", "bad_xml"}
    for broken in (b"", data[:100], data[: len(data) // 2], bytes(5000)):
        path.write_bytes(broken)
        assert _bad(_run(path)) == [("s.example", "bad_archive")]


def test_an_archive_without_posts_or_with_a_bomb_is_a_bad_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "HARMLESS_BYTES", 1 << 20)
    monkeypatch.setattr(
        "py7zr.py7zr.check_archive_path", lambda _: True
    )  # which refuses to write such a name
    inside = {"../Posts.xml": HEAD + question(1) + TAIL, "Users.xml": b"<users />"}
    path = _archive(tmp_path, "s.example.7z", inside)
    before = sorted(tmp_path.parent.rglob("*"))
    assert _bad(_run(path)) == [("s.example", "no_posts")]
    assert sorted(tmp_path.parent.rglob("*")) == before
    path = _archive(tmp_path, "bomb.example.7z", {"Posts.xml": HEAD + b" " * 30_000_000 + TAIL})
    assert _bad(_run(path)) == [("bomb.example", "archive_bomb")]


def test_questions_without_answers_are_kept_unless_told_otherwise(tmp_path: Path) -> None:
    site = write(tmp_path, [question(1), question(2), answer(3, 2)])
    assert list(_texts(site)) == ["test.example:1", "test.example:2"]
    result = _run(site, keep_unanswered=False)
    assert [document.id for document in result.documents] == ["test.example:2"]
    assert [r.reason for r in result.ledger if r.outcome == "dropped"] == ["no_answers"]


def test_the_layout_pile_takes_three_answers_of_score_three_or_more(tmp_path: Path) -> None:
    rows = [question(1, "<p>q</p>"), *(answer(10 + s, 1, s, f"<p>{s}</p>") for s in (1, 3, 7, 2, 100, 12))]
    site = write(tmp_path, rows)
    assert _texts(site, layout="pile") == {
        "test.example:1": "Q:\n\nQuestion 1\n\nq\n\nA:\n\n100\n\nA:\n\n12\n\nA:\n\n7"
    }
    assert _run(site, layout="pile").documents[0].metadata["answer_ids"] == "110,22,17"
    plain = "Question 1\n\nq\n\n100\n\n12\n\n7\n\n3\n\n2\n\n1"
    assert _texts(site, layout="plain") == {"test.example:1": plain}


def test_provenance_names_site_posts_licences_and_where_to_look(tmp_path: Path) -> None:
    rows = [
        question(5, ContentLicense="CC BY-SA 3.0", Tags="<tea>"),
        answer(6, 5, ContentLicense="CC BY-SA 4.0"),
    ]
    (document,) = _run(write(tmp_path, rows)).documents
    assert (document.id, document.source) == ("test.example:5", "stackexchange")
    assert document.metadata == {
        "site": "test.example",
        "question_id": "5",
        "answer_ids": "6",
        "title": "Question 5",
        "tags": "<tea>",
        "date": "2020-01-01T00:00:00.000",
        "licence": "CC BY-SA 3.0, CC BY-SA 4.0",
        "url": "https://test.example/q/5",
    }


def test_entities_of_title_and_body_are_unescaped_once(tmp_path: Path) -> None:
    rows = [
        question(1, "<p>type <code>&amp;lt;br&amp;gt;</code> &amp; see</p>", Title="What is &lt; in <b>?")
    ]
    texts = _texts(write(tmp_path, rows))
    assert texts == {"test.example:1": "What is &lt; in <b>?\n\ntype &lt;br&gt; & see"}


def _parse(data: bytes, step: int = 1 << 30) -> tuple[list[str], list[BadRecord]]:
    found: list[str] = []
    bad: list[BadRecord] = []
    parser = posts.PostsParser("f", on_row=lambda r: found.append(r.get("Id", "")), on_bad=bad.append)
    for start in range(0, len(data), step):
        parser.feed(data[start : start + step])
    parser.close()
    return found, bad


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "fault",
    [
        b'  <row Id="bad" Body="no end of this <b>\r\n',
        b'  <row Id="bad" Body="&undeclared;" />\r\n',
        b'  <row Id="bad" Id="twice" />\r\n',
        b'  <row Id="bad" Body="\xff\xfe" />\r\n',
        b'  <row Id="bad" Body="\x00" />\r\n',
        b'  <row Id="bad" Body="&#xD800;" />\r\n',
        b'  <row Id="bad" <row <row <row Id= />\r\n',
        b"</posts>\r\n",
    ],
)
def test_a_bad_row_costs_itself_and_the_rows_after_it_are_read(fault: bytes, step: int) -> None:
    data = HEAD + question(1) + question(2) + fault + question(3) + fault + question(4) + TAIL
    found, bad = _parse(data, step)
    assert [post_id for post_id in found if post_id != "bad"] == ["1", "2", "3", "4"]
    assert {record.reason for record in bad} == {"bad_xml"}
    assert bad[0].id.startswith("f@")


def test_a_file_cut_short_is_reported_and_its_rows_are_kept() -> None:
    data = HEAD + question(1) + question(2)
    for cut in (len(data), len(data) - 5, len(HEAD), 3, 0):
        found, bad = _parse(data[:cut])
        assert found == ["1", "2"][: data[:cut].count(b"/>")]
        assert [record.reason for record in bad] == ["truncated_xml"]


def test_a_document_type_is_refused_before_its_entities_exist() -> None:
    laughs = b'<!DOCTYPE posts [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>\n<posts>\n'
    found, bad = _parse(laughs + question(1, "&b;").replace(b"&amp;b", b"&b") + question(2) + TAIL)
    assert found == ["2"]
    assert [record.reason for record in bad] == ["bad_xml", "bad_xml"]
    assert "document type" in bad[0].detail


def test_rows_and_nesting_without_end_are_cut_off_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "MAX_ROW_BYTES", 200_000)
    endless = question(9, "x" * 1_000_000)
    found, bad = _parse(HEAD + question(1) + endless + question(2) + TAIL)
    assert found == ["1", "2"]
    assert [record.reason for record in bad] == ["row_too_long"]
    found, bad = _parse(HEAD + b"<a>" * 100 + question(1) + TAIL)
    assert found == ["1"]
    assert "nested" in bad[0].detail


def test_a_file_with_nothing_but_faults_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posts, "MAX_BAD_ROWS", 50)
    found, bad = _parse(HEAD + b"<row <" * 1000 + question(1) + TAIL)
    assert found == []
    assert len(bad) == 52
    assert bad[-1].reason == "too_many_bad_rows"


def test_the_join_does_not_depend_on_memory_or_on_the_order_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_FAN_IN", 3)
    rows = [question(n, f"<p>{'body ' * (n % 50)}</p>") for n in range(1, 300)]
    rows += [answer(1000 + n, 1 + n * n % 299, n % 13) for n in range(600)]
    expected = _texts(write(tmp_path, rows, site="s.example"))
    shuffled = sorted(rows, key=lambda data: hash(data[::-1]) % 997)
    found = _texts(write(tmp_path / "other", shuffled, site="s.example"), memory_bytes=1 << 16)
    assert list(found) == [f"s.example:{n}" for n in range(1, 300)]
    assert found == expected


def test_parts_of_a_large_site_have_every_question_and_every_fault_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [question(n) for n in range(1, 40, 2)]
    rows += [answer(100 + n, n % 50, n) for n in range(60)]
    folder = write(tmp_path, [*rows[::-1], b"  <row Id=/>\n", row(Id="x", PostTypeId=1, Score=0, Body="b")])
    whole = _run(folder)
    monkeypatch.setattr(recipe, "PART_BYTES", (folder / "Posts.xml").stat().st_size // 3)
    in_parts = _run(folder)
    assert len(stages(StackExchangeConfig(), source="s", inputs=[folder])[0].splits) == 3
    assert [d.id for d in whole.documents] != [d.id for d in in_parts.documents]
    assert sorted(in_parts.documents, key=lambda d: d.id) == sorted(whole.documents, key=lambda d: d.id)
    assert Counter(_bad(in_parts)) == Counter(_bad(whole))
    assert {"bad_xml", "bad_row", "orphan_answer"} == {reason for _, reason in _bad(whole)}


def test_a_thread_too_large_for_memory_loses_answers_and_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "MAX_THREAD_BYTES", 3000)
    result = _run(write(tmp_path, [question(1), *(answer(n, 1, body="<p>y</p>" * 100) for n in range(2, 9))]))
    assert result.documents[0].metadata["answer_ids"] == "2,3,4"
    assert [reason for _, reason in _bad(result)] == ["oversized_thread"] * 4


def test_scratch_files_are_gone_after_success_and_after_an_error(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    site = write(tmp_path, [question(n) for n in range(1, 2000)])
    read = stages(StackExchangeConfig(memory_bytes=1 << 16, scratch=scratch), source="s", inputs=[site])[0]
    reader = read.make(**read.settings)
    assert sum(isinstance(found, Document) for found in reader(read.splits[0])) == 1999
    assert list(scratch.iterdir()) == []
    half = reader(read.splits[0])
    next(half)
    assert len(list(scratch.iterdir())) == 1
    half.close()
    assert list(scratch.iterdir()) == []


def test_an_error_while_an_archive_is_read_is_not_taken_for_a_damaged_archive(tmp_path: Path) -> None:
    path = _archive(tmp_path, "s.example.7z", {"Posts.xml": HEAD + question(1) + TAIL})

    def full(_row: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        dump.parse_posts(Site("s.example", path), on_row=full, on_bad=lambda _: None)


_READ_IT = """
import resource, sys
from criadero.corpus.sources.stackexchange.recipe import StackExchangeConfig, stages
read = stages(StackExchangeConfig(memory_bytes=2_000_000), source="s", inputs=[sys.argv[1]])[0]
reader = read.make(**read.settings)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
answers = sum(found.metadata["answer_ids"].count(",") + 1 for found in reader(read.splits[0]))
print(answers, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_a_dump_larger_than_the_memory_limit_is_joined_within_it(tmp_path: Path) -> None:
    body = "<p>" + "a sentence of some length. " * 200 + "</p>"
    path = tmp_path / "big.example" / "Posts.xml"
    path.parent.mkdir()
    with path.open("wb") as stream:
        stream.write(HEAD)
        for n in range(5000):
            stream.write(answer(100_000 + n, 1 + n * 7 % 1000, n, body))
            if n < 1000:
                stream.write(question(1 + n, body))
        stream.write(TAIL)
    dump_bytes = path.stat().st_size
    assert dump_bytes > 32_000_000
    done = subprocess.run(
        [sys.executable, "-c", _READ_IT, str(path)], capture_output=True, text=True, check=True, timeout=100
    )
    answers, grown_bytes = map(int, done.stdout.split())
    assert answers == 5000
    assert grown_bytes < 16_000_000 < dump_bytes


def test_twice_the_rows_take_less_than_three_times_as_long(tmp_path: Path) -> None:
    for unit in (b"<row <", b"<a>", question(1, "&" * 3000), b'<row Body="', b"\xff"):
        assert is_linear(_parse, lambda count, unit=unit: HEAD + unit * count, 2_000_000 // len(unit))


def test_the_sample_sites_give_a_thread_for_every_question() -> None:
    result = _run(SAMPLE)
    counts = Counter(document.metadata["site"] for document in result.documents)
    assert counts == {"bicycles.example.com": 7, "cooking.example.com": 7, "gardening.example.com": 8}
    assert _bad(result) == [("bicycles.example.com:21", "orphan_answer")]
    texts = {document.id: document.text for document in result.documents}
    assert (
        '\n    if width_mm < 20 or width_mm > 60:\n        raise ValueError("no idea")\n'
        in (texts["bicycles.example.com:5"])
    )
    assert "\n- it does not like\n  - leaves lying on it,\n" in texts["gardening.example.com:11"]
    assert texts["bicycles.example.com:11"].startswith("Is <b>steel</b> really")
    eggs = next(document for document in result.documents if document.id == "cooking.example.com:1")
    assert eggs.metadata["answer_ids"] == "5,6,4,2,3"
    for text in texts.values():
        assert not re.search(r"</?(p|code|li|em|strong|a|img|blockquote)\b|&(amp|lt|gt|quot);", text)
