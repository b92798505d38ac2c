"""The verbs `corpus build`, `funnel` and `explain`: what they print, refuse, and do when they are stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from criadero.cli.corpus_progress import CorpusDisplay, describe_progress
from criadero.corpus.engine.progress import Progress
from criadero.corpus.sources import text


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    lines = [json.dumps({"id": f"d{n}", "text": f"text {n} " * (n + 1)}) for n in range(20)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "broken"]) + "\n")
    path = tmp_path / "recipe.toml"
    path.write_text('[sources.mine]\nkind = "text"\ninputs = ["*.jsonl"]\n')
    return path


@pytest.fixture
def built(recipe: Path, tmp_path: Path, program) -> Path:
    assert program("corpus", "build", recipe, tmp_path / "out", "--workers", 0, "--json").code == 0
    return tmp_path / "out"


def test_build_says_what_came_of_it_and_what_to_do_next(recipe: Path, tmp_path: Path, program) -> None:
    done = program("corpus", "build", recipe, tmp_path / "out", "--workers", "0", "--memory", "512MB")
    assert done.code == 0
    assert "not_json 1" in done.stdout
    assert "sampling prop." in done.stdout
    assert "[[data.sources]]" in done.stdout
    assert "criadero shards build" in done.stdout
    again = program("corpus", "build", recipe, tmp_path / "out", "--workers", "0")
    assert again.code == 0
    assert "is finished already" in again.stdout


def test_build_prints_one_json_object(recipe: Path, tmp_path: Path, program) -> None:
    done = json.loads(program("corpus", "build", recipe, tmp_path / "o", "--workers", 0, "--json").stdout)
    assert done["sources"]["mine"]["documents_out"] == 20
    assert done["mixture"]["sources"][0]["epochs"] == 1
    assert done["was_finished"] is False


def test_a_dry_run_shows_inputs_stages_and_the_papers_table_and_writes_nothing(
    recipe: Path, tmp_path: Path, program
) -> None:
    recipe.write_text('[sources.c4]\nkind = "text"\ninputs = ["*.jsonl"]\nnear_duplicates = {}\n')
    shown = program("corpus", "build", recipe, tmp_path / "out", "--dry-run").stdout
    assert "c4: 1 inputs, 1 splits" in shown
    assert "read -> near_duplicates" in shown
    assert "198B" in shown
    planned = json.loads(program("corpus", "build", recipe, tmp_path / "out", "--dry-run", "--json").stdout)
    assert planned["sources"]["c4"]["stages"] == ["read", "near_duplicates"]
    assert not (tmp_path / "out").exists()


def test_overrides_reach_the_recipe(recipe: Path, tmp_path: Path, program) -> None:
    arguments = ["corpus", "build", recipe, tmp_path / "out", "sources.mine.ids=place", "--workers", 0]
    assert program(*arguments).code == 0
    assert next(iter(text.read(tmp_path / "out/documents/mine"))).id == "in.jsonl@0"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--memory", "much"], 2, "`--memory much` is no size"),
        (["engine.memory=3"], 2, "did you mean `memory_bytes`?"),
        (['sources.mine.inputs=["nothing-here"]'], 1, "nothing at `"),
        (["--memory", "1MB"], 2, "engine.memory_bytes"),
    ],
)
def test_what_cannot_be_built_is_said_before_any_work(
    recipe, tmp_path, program, arguments, code, words
) -> None:
    done = program("corpus", "build", recipe, tmp_path / "out", *arguments)
    assert done.code == code
    assert words in done.stderr
    assert not (tmp_path / "out").exists()


def test_funnel_prints_the_contract(built: Path, tmp_path: Path, program) -> None:
    characters = sum(len(f"text {n} " * (n + 1)) for n in range(20))
    assert json.loads(program("corpus", "funnel", built, "--json").stdout) == {
        "sources": {
            "mine": {
                "documents_in": 21,
                "documents_out": 20,
                "characters_in": characters,
                "characters_out": characters,
                "dropped": {"not_json": 1},
            }
        }
    }
    done = program("corpus", "funnel", built, "--png", tmp_path / "funnel.png")
    assert "share left" in done.stdout
    assert (tmp_path / "funnel.png").read_bytes().startswith(b"\x89PNG")


def test_explain_tells_a_story_or_names_near_ids(built: Path, program) -> None:
    assert "kept in documents/mine/part-00000.parquet" in program("corpus", "explain", built, "d7").stdout
    (story,) = json.loads(program("corpus", "explain", built, "d7", "--json").stdout)["stories"]
    assert [stage["outcome"] for stage in story["stages"]] == ["kept"]
    missing = program("corpus", "explain", built, "d77")
    assert missing.code == 1
    assert "the nearest ids are 'd7'" in missing.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_build_ends_with_75_and_the_same_command_goes_on(tmp_path: Path, number: int) -> None:
    lines = [json.dumps({"id": f"d{n}", "text": f"text {n} " * 400}) + "\n" for n in range(800)]
    for part in range(6):
        (tmp_path / f"{part}.jsonl").write_text("".join(lines).replace('"d', f'"{part}-'))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('[sources.mine]\nkind = "text"\ninputs = ["*.jsonl"]\nnear_duplicates = {}\n')
    command = [sys.executable, "-m", "criadero", "corpus", "build", str(recipe), str(tmp_path / "out")]
    process = subprocess.Popen([*command, "--workers", "0"], stderr=subprocess.PIPE, text=True)
    journal = tmp_path / "out/journal.jsonl"
    while process.poll() is None and not (journal.exists() and '"task"' in journal.read_text()):
        time.sleep(0.01)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75, stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out/manifest.json").exists()
    again = subprocess.run([*command, "--workers", "0", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["sources"]["mine"]["documents_in"] == 4_800


PROGRESS = Progress(
    source="wikipedia",
    stage="read + clean",
    splits_done=3,
    splits_total=40,
    documents=12_345,
    documents_per_second=678.9,
    seconds_left=130.0,
    reasons=Counter({"redirect": 900, "namespace": 50, "empty": 5, "bad_xml": 1}),
)


def test_progress_shows_stage_rate_time_left_and_reasons() -> None:
    line = describe_progress(PROGRESS)
    assert line == (
        "wikipedia: read + clean  3/40 splits  12,345 documents  679/s  2 min 10 s left  "
        "left out 956 (redirect 900, namespace 50, empty 5, ...)"
    )
    assert len(describe_progress(PROGRESS, columns=50)) == 49
    beginning = Progress("wikipedia", "", 0, 0, 0, 0.0, None, Counter())
    assert describe_progress(beginning) == "wikipedia: looking at the inputs"
    at_once = Progress("notes", "read", 1, 1, 30, 0.0, None, Counter())
    assert describe_progress(at_once) == "notes: read  1/1 splits  30 documents"


def test_without_a_terminal_a_line_is_logged_every_few_seconds(caplog, monkeypatch) -> None:
    caplog.set_level("INFO", "criadero")
    clock = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr("criadero.cli.corpus_progress.time.monotonic", lambda: next(clock))
    with CorpusDisplay() as display:
        for _ in range(3):
            display(PROGRESS)
    assert [record.getMessage() for record in caplog.records] == [describe_progress(PROGRESS)]
