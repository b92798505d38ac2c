"""What a crawl is read from: archives, folders of them, and a crawl's own list of paths.

Entry point: `splits(inputs, base=..., downloads=...)`. One archive is one split, in order of its name, so the
order of documents depends on the inputs alone.
"""

from __future__ import annotations

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from criadero.corpus.engine.stage import Split
from criadero.corpus.remote import download, is_url
from criadero.errors import DataError

SUFFIXES = tuple(f".{kind}{how}" for kind in ("warc", "wet", "warc.wet") for how in ("", ".gz", ".zst"))
LIST_SUFFIXES = (".paths", ".paths.gz")
_MAX_LIST_BYTES = 1 << 28


def splits(
    inputs: Sequence[Path | str], *, base: str, downloads: Path | None, s3_endpoint: str | None = None
) -> tuple[Split, ...]:
    """Return one split for each archive.

    Args:
        inputs: archives, folders (all archives below), URLs of archives, and lists of paths (`wet.paths.gz`),
            local or as URL.
        base: what the paths of a list are relative to, `https://...` or `s3://...`.
        downloads: folder for what comes from URLs.
        s3_endpoint: of an S3 service other than Amazon's.

    Raises:
        DataError: an input is missing or of no known kind, nothing is to be read, or URLs are given without a
            folder for downloads.
    """
    found = [pair for given in inputs for pair in _archives(str(given), base, downloads, s3_endpoint)]
    if not found:
        raise DataError("there is no crawl archive to read", hint=f"readable are {', '.join(SUFFIXES)}")
    counts = Counter(name for name, _ in found)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise DataError(
            f"two inputs have the name `{twice[0]}`, so their documents would have the same ids",
            hint="give the folder that both are in",
        )
    return tuple(Split(name, path) for name, path in sorted(found))


def _archives(
    given: str, base: str, downloads: Path | None, s3_endpoint: str | None
) -> Iterator[tuple[str, str]]:
    """Yield name and place of each archive that an input stands for."""
    is_list = given.endswith(LIST_SUFFIXES)
    if is_list or is_url(given):
        if downloads is None:
            what = f"`{given}` lists files to download" if is_list else f"{given} is to be downloaded"
            raise DataError(f"{what}, but nowhere to", hint="set `downloads` to a folder")
        if not is_list:
            yield given.rsplit("/", 1)[-1], given
            return
        path = download(given, downloads, endpoint=s3_endpoint) if is_url(given) else Path(given)
        for line in _lines(path):
            yield line, f"{base.rstrip('/')}/{line}"
    elif Path(given).is_dir():
        root = Path(given).resolve()
        for path in sorted(root.rglob("*")):
            if path.name.endswith(SUFFIXES) and path.is_file() and not path.name.startswith("."):
                yield f"{root.name}/{path.relative_to(root).as_posix()}", str(path)
    elif not Path(given).is_file():
        raise DataError(f"`{given}` does not exist")
    elif not given.endswith(SUFFIXES):
        raise DataError(f"`{given}` is no crawl archive", hint=f"readable are {', '.join(SUFFIXES)}")
    else:
        yield Path(given).name, given


def _lines(path: Path) -> list[str]:
    """Return the paths of a list; each must lead below the base."""
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as stream:
            data = stream.read(_MAX_LIST_BYTES + 1)
        lines = [line.strip() for line in data.decode().split("\n") if line.strip()]
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise DataError(f"`{path}` is no readable list of paths: {problem}") from None
    if len(data) > _MAX_LIST_BYTES:
        raise DataError(f"`{path}` is too long for a list of paths")
    for line in lines:
        if ":" in line or line.startswith("/") or ".." in line.split("/"):
            raise DataError(f"`{path}`: {line!r} is no path below the base URL")
    return lines
