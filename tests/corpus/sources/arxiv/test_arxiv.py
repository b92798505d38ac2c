"""arXiv from source tars to documents: main files, inputs, encodings, failures by name, hostile archives."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from criadero.corpus.document import BadRecord, Document
from criadero.corpus.engine.inline import InlineResult, run_inline
from criadero.corpus.sources.arxiv import archive, project
from criadero.corpus.sources.arxiv.project import Failure, Paper, assemble
from criadero.corpus.sources.arxiv.read import paper_id
from criadero.corpus.sources.arxiv.recipe import ArxivConfig, stages
from criadero.errors import DataError
from linear_time import is_linear

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "arxiv"


def _run(*inputs: Path, **settings: bool) -> InlineResult:
    return run_inline(stages(ArxivConfig(**settings), source="arxiv", inputs=inputs))


def _bad(result: InlineResult) -> dict[str, str]:
    return {row.id: row.reason for row in result.ledger if row.outcome in {"bad", "dropped"}}


def _tar(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as written:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            written.addfile(header, io.BytesIO(data))
    return stream.getvalue()


def _paper(body: str = r"\section{A} text", preamble: str = "") -> str:
    return f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"


def _assembled(**files: str | bytes) -> Paper:
    data = {name: text if isinstance(text, bytes) else text.encode() for name, text in files.items()}
    found = assemble({name.replace("__", "/").replace("_", "."): text for name, text in data.items()})
    assert isinstance(found, Paper)
    return found


def test_a_bulk_tar_is_read_member_by_member_and_failures_are_named(tmp_path: Path) -> None:
    project_tar = _tar({"main.tex": _paper(r"\section{A}\input{b}").encode(), "b.tex": b"from b"})
    bulk = {
        "0704/0704.0001.gz": gzip.compress(project_tar),
        "0704/0704.0002.pdf": b"%PDF-1.4 ...",
        "0704/0704.0003.gz": gzip.compress(b"%auto-ignore\nThis paper has been withdrawn."),
        "0704/hep-th9901001.gz": gzip.compress(_paper().encode()),
        "0704/0704.0004.gz": gzip.compress(_tar({"a.tex": b"no class", "b.tex": b"none"})),
        "0704/0704.0005.gz": gzip.compress(project_tar)[:-40],
        "0704/0704.0006.gz": gzip.compress(_paper("no sections here").encode()),
        "0704/0704.0007.gz": gzip.compress(b"%!PS-Adobe"),
        "0704/0704.0001.tar.gz": gzip.compress(project_tar),
        "0704/0704.0008.gz": gzip.compress(_tar({"figure.eps": b"%!PS"})),
        "0704/0704.0009.gz": b"",
    }
    path = tmp_path / "arXiv_src_0704_001.tar"
    path.write_bytes(_tar(bulk))
    result = _run(path)
    assert {document.id: document.text for document in result.documents} == {
        "0704.0001": "\\section{A}\nfrom b",
        "hep-th/9901001": "\\section{A} text",
    }
    assert result.documents[0].metadata == {
        "file": "0704/0704.0001.gz",
        "main_file": "main.tex",
        "files": "main.tex, b.tex",
        "arxiv_id": "0704.0001",
    }
    assert _bad(result) == {
        "0704.0002": "pdf_only",
        "0704.0003": "withdrawn",
        "0704.0004": "no_main_file",
        "0704.0005": "bad_archive",
        "0704.0006": "no_section",
        "0704.0007": "postscript_only",
        "arXiv_src_0704_001.tar#0704/0704.0001.tar.gz": "duplicate_id",
        "0704.0008": "no_main_file",
        "0704.0009": "no_section",
    }


def test_the_sample_gives_eight_papers_without_macros_of_their_own() -> None:
    result = _run(SAMPLE)
    assert [document.id for document in result.documents] == [f"0000.{n:05}" for n in range(1, 9)]
    assert _bad(result) == {}
    for document in result.documents:
        assert document.text.startswith("\\section")
        for gone in ("\\newcommand", "\\bibliography", "\\documentclass", "%%", "\\Sexpr{options", "<<"):
            assert gone not in document.text.replace("<<-", "")
    assert "\\mathbf{T}_j(\\mathcal{L}_n" in result.documents[2].text
    assert sum(len(document.text) for document in result.documents) > 200_000


def test_single_papers_of_every_packing_are_read_in_groups(tmp_path: Path) -> None:
    text = _paper().encode()
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name, data in {
        "a.tex": text,
        "b.tex.gz": gzip.compress(text),
        "deep/c.tar.gz": gzip.compress(_tar({"x/c.tex": text})),
        "2301.00001.gz": gzip.compress(text),
        "deep/e.Rnw": b"\\documentclass{a}\\begin{document}\\section{A}\n<<>>=\nx\n@\n\\end{document}",
        "deep/2301.00001.tex": text,
        "notes.md": b"none",
        "f.pdf": b"%PDF",
    }.items():
        (folder / name).write_bytes(data)
    recipe = stages(ArxivConfig(), source="arxiv", inputs=[folder])
    assert [split.path for split in recipe[0].splits] == [str(folder), str(folder / "deep")]
    result = run_inline(recipe)
    assert [document.id for document in result.documents] == [
        "2301.00001",
        "in/a.tex",
        "in/b.tex.gz",
        "in/deep/2301.00001.tex",
        "in/deep/c.tar.gz",
        "in/deep/e.Rnw",
    ]
    assert _bad(result) == {"in/f.pdf": "pdf_only"}
    assert "\\begin{verbatim}\nx\n\\end{verbatim}" in result.documents[-1].text
    with pytest.raises(DataError, match="nothing to read"):
        stages(ArxivConfig(), source="arxiv", inputs=[folder / "notes.md"])
    with pytest.raises(DataError, match="does not exist"):
        stages(ArxivConfig(), source="arxiv", inputs=[tmp_path / "none.tar"])


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("0704/0704.0001.gz", "0704.0001"),
        ("2301/2301.12345v2.tar.gz", "2301.12345v2"),
        ("9901/hep-th9901001.gz", "hep-th/9901001"),
        ("mine/paper.tex", "mine/paper.tex"),
    ],
)
def test_ids_are_arxivs_where_the_name_is(name: str, identity: str) -> None:
    assert paper_id(name) == identity


def test_bug_6_papers_that_are_not_utf8_are_decoded() -> None:
    latin = _assembled(main_tex=_paper("\\section{A} d\xe9j\xe0 \x96 vu").encode("latin-1"))
    assert "déjà – vu" in latin.text  # Windows-1252, for what Latin-1 has no letter for
    declared = _paper("\\section{A} Привет", "\\usepackage[koi8-r]{inputenc}").encode("koi8-r")
    assert "Привет" in _assembled(main_tex=declared).text
    commented = _paper("\\section{A} déjà", "%\\usepackage[koi8-r]{inputenc}").encode()
    assert "déjà" in _assembled(main_tex=commented).text
    assert "漢字" in _assembled(main_tex=b"\xef\xbb\xbf" + _paper("\\section{A} 漢字").encode()).text
    assert "\x81" in _assembled(main_tex=_paper("\\section{A}").encode() + b"\x81\xff").text


def test_bug_7_inputs_come_where_they_are_asked_for_not_in_the_order_of_files() -> None:
    paper = _assembled(
        a_tex="never asked for",
        main_tex=_paper(
            "\\section{A}\\input{z}\\input sub/y middle\n\\include{sub/x.tex}"
            "\\import{sub/}{w}\\subfile{sub/v}%\\input{a}\n\\verb|\\input{a}| \\input{gone}end"
        ),
        z_tex="ZED",
        sub__y_tex="WHY",
        sub__x_tex="EX\\endinput never",
        sub__w_tex="WE\\subimport{deep}{u}\\input{u2}",
        sub__v_tex="\\documentclass[../main]{subfiles}\\begin{document}VIE\\end{document}",
        sub__deep__u_tex="YOU",
        sub__u2_tex="TWO",
    )
    words = paper.text.split("\\section{A}")[1]
    expected = "ZED WHY middle EX WE YOU TWO VIE \\verb|\\input{a}| end \\end{document}"
    assert " ".join(words.split()) == expected
    assert paper.missing == ("gone",)
    assert paper.files[0] == "main.tex"
    assert "a.tex" not in paper.files


def test_the_main_file_is_the_one_with_class_and_document() -> None:
    part = "\\documentclass{subfiles}\\begin{document}x\\end{document}"
    files = {"chapter_tex": part, "macros_tex": "\\def\\x{\\documentclass}", "short_tex": _paper("s")}
    assert _assembled(**files, long_tex=_paper("\\section{A}" + "long " * 50)).main == "long.tex"
    assert _assembled(**files, ms_tex=_paper("s"), long_tex=_paper("l" * 50)).main == "ms.tex"
    named = _assembled(**files, **{"00README_XXX": "short.tex toplevelfile"}, long_tex=_paper("l" * 50))
    assert named.main == "short.tex"
    assert _assembled(a_tex="%\\documentclass{a}", b_tex="\\begin{document}b\\end{document}").main == "b.tex"
    assert _assembled(only_tex="plain \\bye").main == "only.tex"


def test_inputs_in_a_circle_or_without_end_stop() -> None:
    paper = _assembled(main_tex=_paper("\\section{A} a \\input{b}"), b_tex="b \\input{main}\\input{b}")
    assert paper.text.count("\\section") == 1
    chain = {f"f{n}_tex": f"<{n}>\\input{{f{n + 1}}}" for n in range(30)}
    assert "<14>" in _assembled(main_tex=_paper("\\input{f0}"), **chain).text


def test_inputs_that_multiply_are_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "_MAX_TOKENS", 10_000)
    laughs = {f"l{n}.tex": (f"\\input{{l{n + 1}}}" * 10).encode() for n in range(12)}
    found = assemble({"main.tex": _paper("\\input{l0}").encode(), **laughs})
    assert isinstance(found, Failure)
    assert found.reason == "too_long"


def test_what_is_never_true_is_hidden() -> None:
    body = "\\section{A}one \\iffalse hidden \\ifx\\a\\b x\\fi \\iff y \\fi two \\iffalse no \\else three"
    assert "one two three" in " ".join(_assembled(main_tex=_paper(body)).text.split())
    assert "hidden" in _assembled(main_tex=_paper("\\section{A}\\iffalse hidden")).text


def _member(name: str, kind: bytes, link: str = "") -> bytes:
    header = tarfile.TarInfo(name)
    header.type = kind
    header.linkname = link
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as written:
        written.addfile(header)
    return stream.getvalue()[:512]


HOSTILE = (
    _member("evil", tarfile.SYMTYPE, "/etc/passwd")
    + _member("hard.tex", tarfile.LNKTYPE, "../../etc/passwd")
    + _member("device", tarfile.CHRTYPE)
    + _member("pipe", tarfile.FIFOTYPE)
    + _member("../out.tex", tarfile.REGTYPE)
    + _member("/abs.tex", tarfile.REGTYPE)
    + _member("a\\..\\b.tex", tarfile.REGTYPE)
)


def test_bug_10_members_that_lead_out_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    inner = HOSTILE + _tar({"main.tex": _paper().encode()})
    bulk = tmp_path / "in" / "arXiv_src_2301_001.tar"
    bulk.parent.mkdir()
    bulk.write_bytes(HOSTILE + _tar({"2301/2301.00001.gz": gzip.compress(inner)}))
    before = sorted(tmp_path.rglob("*"))
    result = _run(bulk)
    assert sorted(tmp_path.rglob("*")) == before
    assert [document.id for document in result.documents] == ["2301.00001"]
    reasons = list(_bad(result).values())
    assert reasons == ["unsafe_member"] * 14
    assert "2301.00001#evil (a link)" in _bad(result)


def test_a_damaged_header_costs_its_member_and_the_rest_is_read(tmp_path: Path) -> None:
    names = [f"2301/2301.0000{n}.gz" for n in range(1, 6)]
    data = bytearray(_tar({name: gzip.compress(_paper().encode()) for name in names}))
    place = data.index(names[2].encode())
    data[place + 140] ^= 0xFF
    path = tmp_path / "arXiv_src_2301_001.tar"
    path.write_bytes(data)
    result = _run(path)
    assert [document.id for document in result.documents] == [f"2301.0000{n}" for n in (1, 2, 4, 5)]
    assert list(_bad(result).values()) == ["bad_archive"]
    for cut in (len(data) - 10_000, place + 700, 100, 0):
        path.write_bytes(data[:cut])
        assert "bad_archive" in _bad(_run(path)).values()


def test_headers_that_promise_gigabytes_or_lead_back_end_the_archive(tmp_path: Path) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.REGTYPE):
        header = tarfile.TarInfo("x.tex")
        header.type = kind
        header.size = 1 << 40
        evil = header.tobuf(tarfile.GNU_FORMAT)
        for data in (evil + bytes(4096), evil):
            path = tmp_path / "arXiv_src_2301_001.tar"
            path.write_bytes(data)
            assert set(_bad(_run(path)).values()) == {"bad_archive"}
            found = archive.unpack("x.gz", io.BytesIO(gzip.compress(data)))
            assert isinstance(found, Failure)
            assert found.reason in {"bad_archive", "too_long"}


def test_bombs_are_cut_off_in_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(_tar({"zeros.eps": bytes(100 << 20), "main.tex": _paper().encode()}))
    zeros = gzip.compress(bytes(100 << 20))
    tracemalloc.start()
    found = archive.unpack("x.gz", io.BytesIO(bomb))
    assert isinstance(found, Failure)
    assert found.reason == "archive_bomb"
    found = archive.unpack("x.tex.gz", io.BytesIO(zeros))
    assert isinstance(found, Failure)
    assert found.reason in {"archive_bomb", "too_long"}
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 80 << 20
    monkeypatch.setattr(archive, "MAX_MEMBERS", 5)
    many = archive.unpack("x.gz", io.BytesIO(gzip.compress(_tar({f"{n}.tex": b"" for n in range(6)}))))
    assert many == Failure("too_many_members", "more than 5")


def test_no_bytes_are_a_fault() -> None:
    sample = gzip.compress(_tar({"main.tex": _paper().encode()}))
    for data in (
        b"",
        b"\x1f\x8b",
        bytes(2000),
        b"\xff" * 600,
        sample[:60],
        sample[::-1],
        sample + sample,
        b"\0tex",
    ):
        found = archive.unpack("p.gz", io.BytesIO(data))
        if isinstance(found, archive.Project):
            assert isinstance(assemble(found.files), Paper | Failure)


def test_reading_papers_does_not_slow_down_with_their_number(tmp_path: Path) -> None:
    paper = gzip.compress(_paper().encode())

    def bulk(count: int) -> Path:
        path = tmp_path / f"{count}.tar"
        path.write_bytes(_tar({f"{n}.gz": paper for n in range(count)}))
        return path

    def read(path: Path) -> None:
        first = stages(ArxivConfig(), source="arxiv", inputs=[path])[0]
        found = list(first.make(**first.settings)(first.splits[0]))
        assert all(isinstance(document, Document) for document in found)

    assert is_linear(read, bulk, 500)


def test_bad_records_carry_where_and_why(tmp_path: Path) -> None:
    path = tmp_path / "arXiv_src_2301_001.tar"
    path.write_bytes(_tar({"2301/2301.00001.gz": gzip.compress(b"%auto-ignore")})[:1024])
    read = stages(ArxivConfig(), source="arxiv", inputs=[path])[0]
    found = list(read.make(**read.settings)(read.splits[0]))
    assert found[0] == BadRecord("2301.00001", "withdrawn", "all TeX files begin with %auto-ignore")
    assert isinstance(found[1], BadRecord)
    assert found[1].id.startswith("arXiv_src_2301_001.tar@")
