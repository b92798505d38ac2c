"""Build arXiv_src_0000_001.tar from Debian packages: `python prepare.py FOLDER_OF_DEBS OUT`.

The vignettes are put as they are, each into a gzipped tar of its own as arXiv keeps a paper, all of them into
one tar as arXiv publishes a month. The numbers 0000.0000N were never given by arXiv.
"""

import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path

PACKAGES = {
    "r-cran-coin_1.4-2-1+b1_amd64.deb": "391bda13701acba6329f821cfde3571827bd7a4cff91b66511945f1c9e7fa9aa",
    "r-cran-flexmix_2.3-18-1_all.deb": "0e034e32acc37efe705db9a27dc0d1ae10358879442b1f749906171020e1ee2e",
    "r-cran-party_1.3-11-1_amd64.deb": "ecca5564178b27b54228a5edace4d2b42493bc8635b251826cee4bd5bd1b7457",
    "r-cran-sandwich_3.0-2-1_all.deb": "a90e7d3c69c70a6d73e4bc63d1f20eae3b4a73866d5266246dd5b3d980c60d79",
    "r-cran-strucchange_1.5-3-1_amd64.deb": "0be3f44609be4e90be3f295880dbcaebf57e5a918b68eb11f18c0900b2a4874d",
    "r-cran-zoo_1.8-11-1_amd64.deb": "81f27bbee835d9d44d2a410211c813d2da6c2d71f1e37d71b019ab259e182b9b",
}
PAPERS = [
    "coin/doc/LegoCondInf.Rnw",
    "coin/doc/MAXtest.Rnw",
    "party/doc/party.Rnw",
    "party/doc/MOB.Rnw",
    "sandwich/doc/sandwich-OOP.Rnw",
    "strucchange/doc/strucchange-intro.Rnw",
    "flexmix/doc/flexmix-intro.Rnw",
    "zoo/doc/zoo-read.Rnw",
]
LIBRARY = "./usr/lib/R/site-library/"


def read_packages(folder):
    found = {}
    for name, sha256 in PACKAGES.items():
        path = folder / name
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            sys.exit(f"{name}: not the file this was made from")
        files = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            for member in archive:
                if member.name.removeprefix(LIBRARY) in PAPERS:
                    found[member.name.removeprefix(LIBRARY)] = archive.extractfile(member).read()
    return found


def tar(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return stream.getvalue()


found = read_packages(Path(sys.argv[1]))
papers = []
for number, name in enumerate(PAPERS, start=1):
    project = tar([(Path(name).name, found[name])])
    papers.append((f"0000/0000.{number:05}.gz", gzip.compress(project, 9, mtime=0)))
    print(f"| 0000.{number:05} | {name} | {len(found[name]):,} | `{hashlib.sha256(found[name]).hexdigest()}` |")
(Path(sys.argv[2]) / "arXiv_src_0000_001.tar").write_bytes(tar(papers))
