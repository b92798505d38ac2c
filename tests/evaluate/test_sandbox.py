"""Programs that do harm, or try: each fails alone, and nothing outside changes."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from criadero.errors import ResourceError
from criadero.evaluate import sandbox
from criadero.evaluate.sandbox import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is the Linux kernel's")


def attempt(program: str, **limits) -> sandbox.Outcome:
    return run(textwrap.dedent(program), **limits)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "assert sorted([3, 1]) == [1, 3]",
        "import math, re, collections, itertools, random, json, datetime, heapq\nassert math.pi > 3",
        "print('much' * 100000)\nimport sys\nsys.stderr.write('x')",
        "import threading\nprint(open('/proc/self/status').read())",
        "import time\ntime.sleep(0.01)\nassert time.time() > 0",
        "x = [0] * 10_000_000",
    ],
)
def test_what_solutions_do_is_possible(program: str):
    assert run(program) == sandbox.Outcome(True, "passed")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("assert 1 == 2", "AssertionError"),
        ("def f(:", "SyntaxError"),
        ("import sys\nsys.exit(0)", "SystemExit"),
        ("import os\nos._exit(0)", "ended with code 0"),
        ("import os\nos.abort()", ""),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import ctypes\nctypes.string_at(0)", "ended with code -11"),
        ("def f(n):\n return f(n + 1)\nf(0)", "RecursionError"),
        ("x = bytearray(1 << 34)", "memory"),
        ("x = []\nwhile True:\n x.append('y' * 10_000_000)", "memory"),
    ],
)
def test_a_program_that_does_not_come_to_its_end_fails(program: str, reason: str):
    outcome = run(program)
    assert not outcome.passed
    assert reason in outcome.reason


@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import subprocess\nsubprocess.run(['true'])",
        "import os\nos.system('true') and exit(1)\nraise OSError",
        "import os\nos.execv('/bin/true', ['true'])",
        "import threading\nthreading.Thread(target=print).start()",
        "import multiprocessing\nmultiprocessing.Process(target=print).start()",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
        "import os, signal\nos.killpg(os.getpgid(os.getppid()), signal.SIGKILL)",
        "import socket\nsocket.socket()",
        "import socket\nsocket.socketpair()",
        "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.io_uring_setup(1, 0) == 0",
        "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.syscall(425, 1, 0) >= 0",
        "import ctypes\nlibc = ctypes.CDLL(None)\nassert libc.ptrace(16, 1, 0, 0) == 0",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import os\nos.mkdir('x')",
        "import tempfile\ntempfile.NamedTemporaryFile()",
    ],
)
def test_what_reaches_outside_is_refused(program: str):
    outcome = run(program, wall_seconds=20)
    assert not outcome.passed
    assert outcome.reason


@pytest.mark.parametrize(
    "change",
    [
        "open(path, 'w').write('x')", "open(path, 'a').write('x')", "open(path, 'r+').write('x')",
        "os.truncate(path, 0)", "os.remove(path)", "os.rename(path, path + '2')", "os.chmod(path, 0)",
        "os.symlink(path, path + '2')", "os.link(path, path + '2')", "os.utime(path, (0, 0))",
        "open(path + '2', 'x')", "os.open(os.path.dirname(path), os.O_RDWR | os.O_TMPFILE)",
        "os.mknod(path + '2')", "os.memfd_create('x')", "shutil.rmtree(os.path.dirname(path))",
    ],
)  # fmt: skip
def test_nothing_is_written(tmp_path: Path, change: str):
    file = tmp_path / "kept"
    file.write_text("as it was")
    before = file.stat()
    outcome = run(f"import os, shutil\npath = {str(file)!r}\nassert open(path).read()\n{change}")
    assert not outcome.passed
    assert "PermissionError" in outcome.reason or "Operation not permitted" in outcome.reason
    assert file.read_text() == "as it was"
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]
    after = file.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_no_connection_is_made():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        port = server.getsockname()[1]
        assert not run(f"import urllib.request\nurllib.request.urlopen('http://127.0.0.1:{port}')").passed
        with pytest.raises(TimeoutError):
            server.accept()


def test_an_endless_program_ends_at_its_limits():
    start_seconds = time.monotonic()
    assert "seconds of processor time" in run("while True: pass", cpu_seconds=1).reason
    assert run("import time\ntime.sleep(60)", wall_seconds=1).reason == "more than 1 seconds"
    assert time.monotonic() - start_seconds < 15


def test_what_was_tampered_with_in_the_process_stays_there():
    hostile = """
        import builtins, sys, os, json
        builtins.exec = builtins.compile = None
        json.loads = lambda _: {"passed": True}
        for descriptor in range(64):
            try:
                os.write(descriptor, b"passed")
            except OSError:
                pass
        os._exit(0)
    """
    assert not attempt(hostile).passed
    assert run("assert True").passed


def test_many_programs_at_once_do_not_disturb_each_other():
    outcomes: dict[int, bool] = {}

    def answer(number: int) -> None:
        outcomes[number] = run(f"assert {number} % 2 == 0", wall_seconds=60).passed

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {number: number % 2 == 0 for number in range(8)}


def test_without_a_sandbox_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "confined.py"
    source = Path(sandbox.__file__).with_name("confined.py").read_text()
    broken.write_text(source.replace("(_SET_SECCOMP, _FILTER, pointer)", "(_DIE_WITH_PARENT, 9, 0)"))
    monkeypatch.setattr(sandbox, "_CONFINED", broken)
    marker = tmp_path / "ran"
    with pytest.raises(ResourceError, match="cannot be confined here: the sandbox does not hold"):
        run(f"open({str(marker)!r}, 'w')")
    assert not marker.exists()
