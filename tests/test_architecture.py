"""The rules of the layout, read from the source with `ast`: layers, files, functions, start-up cost."""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "criadero"

LAYERS = (
    {"errors", "files", "notices", "config", "runs", "sinks"},
    {"tokenizer", "model"},
    {"corpus", "shards", "parallel", "checkpoint", "formats"},
    {"train", "generate", "carbon", "planner"},
    {"report", "doctor", "serve", "evaluate"},
    {"api", "demo", "cli"},
)
# Imports inside a layer, and the few that go up: (importer, imported) -> why.
EDGES = {
    ("files", "errors"): "everything raises errors",
    ("config", "errors"): "everything raises errors",
    ("config", "files"): "configs are saved atomically",
    ("runs", "config"): "settings of runs are compared",
    ("runs", "errors"): "everything raises errors",
    ("runs", "files"): "status and metrics are written atomically",
    ("runs", "notices"): "a lock taken over is said",
    ("sinks", "errors"): "everything raises errors",
    ("sinks", "notices"): "a failing sink is said once",
    ("shards", "corpus"): "shards are built from documents",
    ("checkpoint", "parallel"): "ranks agree on each step of writing and verifying",
    ("formats", "checkpoint"): "a checkpoint is one of the formats a model is read from",
    ("train", "carbon"): "training keeps the energy ledger",
    ("train", "planner"): "what a run needs is checked before it starts",
    ("cli", "demo"): "a verb",
}
DRAWERS = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py", "base.py", "manager.py"}
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
TOO_SLOW_SECONDS = 0.3


def python_files() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def package_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def layer_of(package: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if package in layer)


def imported_packages(file: Path) -> set[str]:
    """The packages of criadero that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "criadero":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("criadero."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("criadero.")}
    return {name for name in found if not name.startswith("_")} - {package_of(file)}


def test_every_package_has_a_layer():
    packages = {package_of(file) for file in python_files()} - {"__init__", "__main__"}
    assert packages == set().union(*LAYERS)


@pytest.mark.parametrize("file", python_files(), ids=lambda f: str(f.relative_to(SOURCE)))
def test_imports_point_down_the_layers(file: Path):
    importer = package_of(file)
    if importer in {"__init__", "__main__"}:
        return
    for imported in imported_packages(file):
        allowed = layer_of(imported) < layer_of(importer) or (importer, imported) in EDGES
        assert allowed, f"{importer} (layer {layer_of(importer)}) imports {imported}"


def test_every_listed_edge_is_used():
    used = {(package_of(file), name) for file in python_files() for name in imported_packages(file)}
    assert set(EDGES) <= used


def test_no_file_is_a_drawer():
    assert [f.name for f in python_files() if f.name in DRAWERS] == []


def test_files_are_short():
    files = [*python_files(), *(SOURCE / "generate" / "kernel").iterdir()]
    long = {str(f.relative_to(SOURCE)) for f in files if f.read_text().count("\n") > 500}
    assert long == set(LONG_FILES)


def test_functions_are_short():
    long = set()
    for file in python_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > 60:
                    long.add(f"{file.relative_to(SOURCE)}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


@pytest.mark.parametrize("file", python_files(), ids=lambda f: str(f.relative_to(SOURCE)))
def test_modules_open_with_a_docstring(file: Path):
    assert ast.get_docstring(ast.parse(file.read_text()))


@pytest.mark.parametrize("file", python_files(), ids=lambda f: str(f.relative_to(SOURCE)))
def test_library_code_does_not_print_exit_or_read_the_environment(file: Path):
    if package_of(file) in {"cli", "__main__"}:
        return
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"print", "exit", "input"}, f"line {node.lineno}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            assert name not in {"os.environ", "os.getenv", "sys.argv", "sys.exit"}, f"line {node.lineno}"


MODULES_SCRIPT = """
import json, sys
sys.argv = {argv!r}
try:
    {action}
except SystemExit:
    pass
finally:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"torch", "pydantic", "numpy", "transformers", "sentencepiece", "matplotlib"}
HEAVY |= {"ray", "duckdb", "pyarrow"}
NAMES = "train generate chat serve import export runs demo doctor tokenizer shards corpus ngram"
NAMES += " benchmarks samples"
VERBS = ["", *NAMES.split()]


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb: str):
    argv = ["criadero", *([verb] if verb else []), "--help"]
    script = MODULES_SCRIPT.format(argv=argv, action="from criadero.cli.app import main; main()")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stderr))
    assert "Usage" in done.stdout
    assert not HEAVY & modules


def test_import_loads_nothing_heavy():
    script = MODULES_SCRIPT.format(argv=["x"], action="import criadero")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stderr))
    assert "criadero" in modules
    assert not HEAVY & modules


@pytest.mark.parametrize("arguments", [["-c", "import criadero"], ["-m", "criadero", "--help"]])
def test_start_is_quick(arguments: list[str]):
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(5)) < TOO_SLOW_SECONDS
