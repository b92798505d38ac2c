"""The C++ kernel as a loaded library: compiled at first use, kept in torch's folder of extensions.

Entry point: `load_library`. One call of the compiler that torch would take, for one file and the headers
beside it, none of torch or Python: neither ninja nor Python's headers are needed, and it takes a few seconds.
What is kept is named by the source and by all the compiler says about this processor; it is loaded only if it
has the hash it was written with.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import platform
import subprocess
import tempfile
from pathlib import Path

from criadero.errors import ResourceError
from criadero.files import sha256_file

SOURCE = Path(__file__).parent / "kernel" / "decoder.cpp"
_NATIVE = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
# No contraction: whether a product is fused with a sum would depend on how the code around it is unrolled.
_FLAGS = ("-O3", _NATIVE, "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", "-w")
_LIMIT_SECONDS = 300


@functools.cache
def load_library() -> ctypes.CDLL:
    """Return the kernel, compiled if this machine has none yet.

    Raises:
        ResourceError: there is no compiler, or it fails, or there is nowhere to keep what it makes.
    """
    try:
        compiler, folder = _compiler_and_folder()
        path = folder / f"{_key(compiler)}.so"
        if not _is_whole(path):
            _compile(compiler, path)
        return ctypes.CDLL(str(path))
    except (OSError, ImportError, subprocess.SubprocessError) as problem:
        raise ResourceError(
            f"the C++ kernel cannot be built: {_reason(problem)}",
            hint="install a C++ compiler such as g++, or name one in CXX",
        ) from None


def _compiler_and_folder() -> tuple[str, Path]:
    """Return what torch takes for its extensions; the user's CXX and TORCH_EXTENSIONS_DIR decide."""
    from torch.utils import cpp_extension  # slow to import

    folder = cpp_extension._get_build_directory("criadero_cpu_kernel", verbose=False)
    return cpp_extension.get_cxx_compiler(), Path(folder)


def _key(compiler: str) -> str:
    """Name source, flags, compiler and processor; the macros of the compiler tell the last two."""
    defined = _run([compiler, *_FLAGS, "-dM", "-E", "-x", "c++", "/dev/null"])
    sources = [path.read_bytes() for path in sorted(SOURCE.parent.iterdir()) if path.is_file()]
    return hashlib.sha256(b"\0".join((*sources, repr(_FLAGS).encode(), defined))).hexdigest()[:32]


def _is_whole(path: Path) -> bool:
    """Tell whether the library is there as it was written; loading a damaged one could end the process."""
    try:
        return path.with_suffix(".sha256").read_text() == sha256_file(path)
    except OSError:
        return False


def _compile(compiler: str, path: Path) -> None:
    """Write library and hash; processes that do it at once put the same there."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made, written = Path(folder) / "made.so", Path(folder) / "made.sha256"
        _run([compiler, *_FLAGS, "-o", str(made), str(SOURCE)])
        written.write_text(sha256_file(made))
        made.replace(path)
        written.replace(path.with_suffix(".sha256"))


def _run(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=_LIMIT_SECONDS).stdout


def _reason(problem: Exception) -> str:
    if isinstance(problem, subprocess.CalledProcessError):
        lines = problem.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        return f"the compiler ended with {problem.returncode}: {lines[0]}"
    if isinstance(problem, FileNotFoundError):
        return f"`{problem.filename}` is not there"
    return str(problem)
