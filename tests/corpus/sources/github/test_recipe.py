"""The recipe whole: real packages, repositories with mixed licences, exports of BigQuery."""

import gzip
import io
import json
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.sources.github.licence_texts import TEXTS
from criadero.corpus.sources.github.recipe import GitHubConfig, make_reader, stages
from criadero.errors import DataError

SAMPLES = Path(__file__).parents[4] / "samples" / "raw" / "github"
GPL_HEADER = "# This file is under the GNU General Public License\n"


def run(*inputs, **config):
    return run_inline(stages(GitHubConfig(**config), source="github", inputs=inputs))


def reasons(result):
    return {row.id: row.reason for row in result.ledger if row.outcome in {"dropped", "bad"}}


def repository(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


@pytest.fixture(scope="module")
def packages():
    return run(SAMPLES)


def test_real_packages_are_read_with_their_licences(packages):
    by_repo = {d.metadata["repo"]: d.metadata["licence"] for d in packages.documents}
    assert by_repo == {
        "attrs-26.1.0": "MIT",
        "chalk-4.1.2": "MIT",
        "click-8.5.1": "BSD-3-Clause",
        "express-4.22.3": "MIT",
        "flask-3.1.3": "BSD-3-Clause",
        "idna-3.20": "BSD-3-Clause",
        "jinja2-3.1.6": "BSD-3-Clause",
        "requests-2.34.2": "Apache-2.0",
    }
    assert {d.metadata["licence_from"] for d in packages.documents} == {"metadata", "text", "spdx_line"}


def test_real_packages_lose_headers_licences_and_what_is_no_code(packages):
    assert set(reasons(packages).values()) <= {"file_type", "licence_text", "long_mean_line", "long_line"}
    express = next(d.text for d in packages.documents if d.id == "express-4.22.3:lib/express.js")
    assert express.startswith("'use strict'")
    heads = [d.text[:300].lower() for d in packages.documents if d.metadata["language"] == "JavaScript"]
    assert not any("copyright" in head for head in heads)


def test_counts_add_up(packages):
    outcomes = Counter(row.outcome for row in packages.ledger)
    read = [row for row in packages.ledger if row.stage == "read"]
    assert len(read) == len(packages.documents) + outcomes["dropped"] + outcomes["bad"]
    assert len({row.id for row in read}) == len(read)


def test_the_nearest_licence_counts(tmp_path):
    repo = repository(
        tmp_path / "repo",
        {
            "LICENSE": TEXTS["MIT"],
            "a.py": "a = 1\n",
            "gpl.py": GPL_HEADER + "b = 1\n",
            "lib/COPYING": "GNU GENERAL PUBLIC LICENSE Version 3",
            "lib/c.py": "c = 1\n",
            "lib/own.py": "# SPDX-License-Identifier: MIT\nd = 1\n",
            "web/package.json": '{"license": "ISC"}',
            "web/e.js": "let e = 1\n",
            "docs/license.md": "How the parser of licences works.\n",
            "docs/f.py": "f = 1\n",
        },
    )
    result = run(repo)
    assert {d.id for d in result.documents} == {"repo:a.py", "repo:lib/own.py", "repo:docs/f.py"}
    dropped = reasons(result)
    assert dropped["repo:gpl.py"] == "file_license"
    assert dropped["repo:lib/c.py"] == "unknown_licence"
    assert dropped["repo:web/e.js"] == "licence"


def test_two_known_texts_must_both_be_allowed(tmp_path):
    repository(
        tmp_path / "repo", {"LICENSE-MIT": TEXTS["MIT"], "LICENSE-0BSD": TEXTS["0BSD"], "a.py": "a = 1\n"}
    )
    assert not run(tmp_path / "repo").documents
    assert len(run(tmp_path / "repo", licences=("MIT", "0BSD")).documents) == 1


def test_an_archive_of_a_repository_loses_its_outer_folder(tmp_path):
    path = tmp_path / "owner-repo.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in [("repo-1a2b/src/a.py", "a = 1\n"), ("repo-1a2b/LICENSE", TEXTS["MIT"])]:
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    assert [d.id for d in run(path).documents] == ["owner-repo:src/a.py"]


def test_a_copy_that_differs_only_in_its_header_goes_as_it_does_not_in_redpajama(tmp_path):
    body = "def f(x):\n    return x + 1\n"
    for repo, header in [
        ("one", "# Copyright 2020 A\n\n"),
        ("two", "# Copyright 2021 B\n# Licensed under MIT\n"),
    ]:
        repository(tmp_path / "all" / repo, {"LICENSE": TEXTS["MIT"], "f.py": header + body})
    result = run(tmp_path / "all")
    assert [(d.id, d.text) for d in result.documents] == [("one:f.py", body)]
    assert reasons(result)["two:f.py"] == "duplicate_file"


def test_generated_files_stay_unless_asked_otherwise(tmp_path):
    files = {"LICENSE": TEXTS["MIT"], "a.go": "// Code generated by x. DO NOT EDIT.\npackage a\n"}
    repository(tmp_path / "repo", files)
    assert len(run(tmp_path / "repo").documents) == 1
    assert reasons(run(tmp_path / "repo", drop_generated=True))["repo:a.go"] == "generated"


def test_binary_and_broken_text_is_named(tmp_path):
    repository(tmp_path / "repo", {"LICENSE": TEXTS["MIT"], "ok.py": "\ufeffa = 1\n"})
    (tmp_path / "repo" / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "repo" / "nul.py").write_bytes(b"a\0b")
    (tmp_path / "repo" / "image.png").write_bytes(b"\x89PNG\xff")
    result = run(tmp_path / "repo")
    assert [d.text for d in result.documents] == ["a = 1\n"]
    found = reasons(result)
    assert (found["repo:latin.py"], found["repo:nul.py"]) == ("not_text", "not_text")
    assert found["repo:image.png"] == "file_type"


ROWS = [
    {"repo_name": "a/b", "path": "x.py", "content": "x = 1\n", "license": "mit"},
    {"sample_repo_name": "a/c", "sample_path": "y.py", "content": "y = 1\n", "license": "bsd-3-clause"},
    {"repo_name": "a/d", "path": "z.py", "content": "z = 1\n", "license": "gpl-3.0"},
    {"repo_name": "a/e", "path": "bin.py", "content": None, "license": "mit"},
    {"repo_name": "a/f", "path": "x.py", "content": "w = 1\n", "license": None},
    {"repo_name": "a/b", "path": "x.py", "content": "x = 2\n", "license": "mit"},
]
KEPT = {"e:a/b:x.py": "MIT", "e:a/c:y.py": "BSD-3-Clause"}
LOST = {"e:a/d:z.py": "licence", "e:a/f:x.py": "unknown_licence", "e:4": "not_text", "e:6": "duplicate_path"}


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".jsonl", ".parquet"])
def test_exports_of_bigquery_are_read(tmp_path, suffix):
    path = tmp_path / f"e{suffix}"
    if suffix == ".parquet":
        pq.write_table(
            pa.Table.from_pylist([dict.fromkeys({k for r in ROWS for k in r}) | row for row in ROWS]), path
        )
    else:
        data = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    result = run(path)
    assert {d.id.replace(f"e{suffix}", "e"): d.metadata["licence"] for d in result.documents} == KEPT
    assert {key.replace(f"e{suffix}", "e"): value for key, value in reasons(result).items()} == LOST


def test_bad_lines_of_an_export_cost_themselves(tmp_path):
    good = json.dumps(ROWS[0]).encode()
    surrogate = json.dumps(ROWS[0] | {"path": "s.py"}).replace("x = 1", "\\ud800").encode()
    lines = [b"{", b"[1]", surrogate, b'{"path": "a"}', b"x" * (9 << 20), good]
    (tmp_path / "e.json").write_bytes(b"\n".join(lines))
    result = run(tmp_path / "e.json")
    assert [d.id for d in result.documents] == ["e.json:a/b:x.py"]
    assert list(reasons(result).values()) == ["not_json", "not_json", "lone_surrogate", "no_path", "not_json"]


def test_a_path_in_two_files_of_an_export_is_two_documents_or_one_copy(tmp_path):
    for name, rows in (
        ("1.json", ROWS[:1]),
        ("2.json", [ROWS[0] | {"content": "x = 3\n"}]),
        ("3.json", ROWS[:1]),
    ):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = run(tmp_path)
    assert [(d.id, d.text) for d in result.documents] == [
        ("1.json:a/b:x.py", "x = 1\n"),
        ("2.json:a/b:x.py", "x = 3\n"),
    ]
    copy = next(row for row in result.ledger if row.outcome == "dropped")
    assert (copy.id, copy.reason, copy.detail) == ("3.json:a/b:x.py", "duplicate_file", "1.json:a/b:x.py")


def test_a_row_of_parquet_that_is_not_utf8_costs_itself(tmp_path):
    contents = pa.array([b"a = 1", b"\xff", b"b = 1"]).view(pa.string())
    names = {"repo_name": ["r"] * 3, "path": ["a.py", "bad.py", "b.py"], "license": ["mit"] * 3}
    pq.write_table(pa.table(names | {"content": contents}), tmp_path / "e.parquet")
    result = run(tmp_path / "e.parquet")
    assert [d.text for d in result.documents] == ["a = 1", "b = 1"]
    assert reasons(result) == {"e.parquet:2": "not_text"}


def test_a_cut_export_is_named(tmp_path):
    data = gzip.compress(
        b"".join(json.dumps(ROWS[0] | {"path": f"{n}.py"}).encode() + b"\n" for n in range(500))
    )
    (tmp_path / "e.json.gz").write_bytes(data[: len(data) // 2])
    assert reasons(run(tmp_path / "e.json.gz"))["e.json.gz"] == "unreadable"
    (tmp_path / "e.parquet").write_bytes(b"PAR1 no parquet")
    assert reasons(run(tmp_path / "e.parquet")) == {"e.parquet": "unreadable"}


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["a.py", "LICENSE", "package.json", "b.c", "METADATA"]), st.binary(max_size=200)
    )
)
def test_no_bytes_in_a_repository_break_the_reader(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("repo")
    files["z.py"] = b"z = 1\n"  # a folder of nothing but .json files holds exports
    for name, content in files.items():
        (folder / name).write_bytes(content)
    read, *each, _ = stages(GitHubConfig(drop_generated=True), source="github", inputs=[folder])
    records = list(make_reader(**read.settings)(read.splits[0]))
    assert len(records) == len(files)
    for stage in each:
        function = stage.make(**stage.settings)
        records = [function(record) for record in records if isinstance(record, Document)]


def test_repositories_of_one_name_are_told_apart(tmp_path):
    for owner in ("one", "two"):
        shutil.copytree(
            repository(tmp_path / "in", {"LICENSE": TEXTS["MIT"], "a.py": "a = 1\n"}),
            tmp_path / owner / "repo",
        )
    names = [
        split.name
        for split in stages(GitHubConfig(), source="g", inputs=[tmp_path / "one", tmp_path / "two"])[0].splits
    ]
    assert names == ["one/repo", "two/repo"]


def test_a_reader_of_the_same_split_gives_the_same_again():
    read = stages(GitHubConfig(), source="github", inputs=[SAMPLES / "chalk-4.1.2.tgz"])[0]
    reader = make_reader(**read.settings)
    assert list(reader(read.splits[0])) == list(reader(read.splits[0]))
    assert not any(isinstance(record, BadRecord) for record in reader(read.splits[0]))


def test_inputs_that_hold_no_source_are_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    for path in (tmp_path / "no", tmp_path / "a.png"):
        with pytest.raises(DataError):
            stages(GitHubConfig(), source="github", inputs=[path])
