"""The data card: what a corpus consists of, where it comes from and what was left out, as Markdown.

Entry point: `write_card`. All numbers are those of manifest, ledger and mixture; only descriptions, licences
and versions are what the recipe says, and what documents say of themselves is counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from criadero import files
from criadero.corpus import benchmark_sets, decontaminate
from criadero.corpus.config import CorpusConfig, SourceConfig
from criadero.corpus.explain import DOCUMENTS_FOLDER
from criadero.corpus.funnel import SourceFunnel, query_files
from criadero.corpus.manifest import CorpusManifest, SourceManifest
from criadero.corpus.mixture import Mixture

_VALUES_SHOWN = 15
_INPUTS_SHOWN = 50
# Stages that look for what should be in a corpus once or not at all, and the words for it.
_NEAR_DUPLICATES = {"near_duplicates": "near-duplicates", "near_copies": "books contained in others"}
_SEARCHED_FOR = {
    **_NEAR_DUPLICATES,
    "dedup": "exact copies",
    "line_dedup": "lines that pages share (removed: pages with no line left)",
    decontaminate.STAGE: "passages of evaluation sets",
}


def write_card(
    out: Path, path: Path, config: CorpusConfig, manifest: CorpusManifest, mixture: Mixture
) -> None:
    """Write the data card of the corpus in `out` to `path`."""
    sections = [
        "# Data card",
        _opening(manifest),
        "## Mixture\n\n" + _mixture(mixture),
        "## Sources\n\n" + "\n\n".join(
            _source(out, name, config.sources[name], source) for name, source in manifest.sources.items()
        ),
        "## Duplicates and contamination\n\n" + _cleanliness(config, manifest),
        "## Known limitations\n\n" + _limitations(config, manifest, mixture),
        "## Made by\n\n" + _provenance(manifest),
    ]  # fmt: skip
    files.write_text(path, "\n\n".join(sections) + "\n")


def _opening(manifest: CorpusManifest) -> str:
    sources = manifest.sources.values()
    return (
        f"{sum(s.documents for s in sources):,} documents, "
        f"{files.format_bytes(sum(s.text_bytes for s in sources))} of text in UTF-8, from "
        f"{len(manifest.sources)} sources."
    )


def _mixture(mixture: Mixture) -> str:
    rows = [
        (
            row.source,
            f"{100 * row.share:.1f}%",
            f"{row.epochs:.2f}",
            files.format_bytes(row.disk_bytes),
            f"{row.tokens:,}",
        )
        for row in mixture.rows
    ]
    table = _table(
        ("Dataset", "Sampling prop.", "Epochs", "Disk size", f"Tokens ({mixture.token_count})"), rows
    )
    columns = "The columns are those of Table 1 of the LLaMA paper; disk size is that of the text in UTF-8."
    return f"For a training of {mixture.tokens:,} tokens. {columns}\n\n{table}"


def _source(out: Path, name: str, config: SourceConfig, source: SourceManifest) -> str:
    funnel = SourceFunnel(name, source.stages)
    facts = {
        "Description": config.description,
        "Version": config.version,
        "From": config.url,
        "Licence": config.licence or "not stated in the recipe",
        "Licences of documents": _counted(out, name, "licence"),
        "Languages": _counted(out, name, "language"),
    }
    parts = [
        f"### {name}",
        "\n".join(f"- {key}: {value}" for key, value in facts.items() if value),
        f"{funnel.documents_in:,} documents with {funnel.characters_in:,} characters came in, "
        f"{funnel.documents_out:,} with {funnel.characters_out:,} are left "
        f"({files.format_bytes(source.text_bytes)}).",
        _stages(funnel),
        "Inputs:\n\n" + _inputs(source),
    ]
    return "\n\n".join(parts)


def _stages(funnel: SourceFunnel) -> str:
    rows = [
        (
            stage.name,
            f"{stage.documents_in:,}",
            f"{stage.documents_out:,}",
            f"{stage.edited:,}",
            f"{stage.characters_out:,}",
            ", ".join(f"{reason} {count:,}" for reason, count in stage.dropped.items()),
        )
        for stage in funnel.stages
    ]
    header = ("Stage", "Documents in", "Documents out", "Edited", "Characters out", "Dropped")
    return _table(header, rows) if rows else "No stage met a document."


def _inputs(source: SourceManifest) -> str:
    folders = [Path(file.name).parent for file in source.inputs if file.sha256]
    shared = os.path.commonpath(folders) if folders else ""
    rows = [
        (
            str(Path(file.name).relative_to(shared)) if file.sha256 else file.name,
            "" if file.size_bytes is None else f"{file.size_bytes:,}",
            file.sha256 or "not hashed",
        )
        for file in source.inputs[:_INPUTS_SHOWN]
    ]
    more = len(source.inputs) - len(rows)
    rest = f"\n\nand {more:,} more, all in `manifest.json`." if more > 0 else ""
    return _table(("File", "Bytes", "sha256"), rows) + rest


def _counted(out: Path, source: str, key: str) -> str:
    """Return how many documents have which value of a metadata key, most frequent first."""
    paths = sorted(str(path) for path in (out / DOCUMENTS_FOLDER / source).glob("*.parquet"))
    query = """
        SELECT value, count(*) AS documents
        FROM (SELECT unnest(map_entries(metadata), recursive := true) FROM read_parquet(?))
        WHERE key = ? GROUP BY value ORDER BY documents DESC, value
    """
    rows = query_files(query, paths, key)
    shown = [f"{row['value']} ({row['documents']:,})" for row in rows[:_VALUES_SHOWN]]
    return ", ".join(shown) + (f" and {len(rows) - len(shown)} more" if len(rows) > len(shown) else "")


def _cleanliness(config: CorpusConfig, manifest: CorpusManifest) -> str:
    rows = []
    for name, source in manifest.sources.items():
        found = [stage for stage in source.stages if stage.name in _SEARCHED_FOR]
        rows += [(name, _SEARCHED_FOR[s.name], f"{sum(s.dropped.values()):,}") for s in found]
        if not found:
            rows.append((name, "nothing", ""))
    return _table(("Source", "Searched for", "Documents removed"), rows) + "\n\n" + _compared(config)


def _compared(config: CorpusConfig) -> str:
    if (sets := config.decontaminate) is None:
        return "Documents were not compared with evaluation sets."
    names = ", ".join(benchmark_sets.files(sets.benchmarks, sets.names))
    return (
        f"Compared with {names}: a document that shares {sets.ngram} words in a row with an item was "
        f"removed, and one that holds a shorter item of at least {sets.min_words} words whole."
    )


def _limitations(config: CorpusConfig, manifest: CorpusManifest, mixture: Mixture) -> str:
    known = [
        "Texts are as their authors wrote them: errors, opinions, personal data and offensive words included."
    ]
    if mixture.token_count == "estimated":
        per_token = config.mixture.bytes_per_token
        known.append(f"Tokens are estimated at {per_token:g} bytes each; epochs are as exact as that.")
    if config.decontaminate is None:
        known.append("Passages of evaluation sets may be in the text: results on them cannot be trusted.")
    searched = {n for n, s in manifest.sources.items() if any(c.name in _NEAR_DUPLICATES for c in s.stages)}
    if unsearched := [f"`{name}`" for name in manifest.sources if name not in searched]:
        known.append(f"Not searched for near-duplicates, and may hold some: {', '.join(unsearched)}.")
    known.append("Near-duplicates are looked for within a source, not between sources.")
    if unlicensed := [f"`{name}`" for name, source in config.sources.items() if not source.licence]:
        known.append(f"The recipe does not say under which licence it uses {', '.join(unlicensed)}.")
    return "\n".join(f"- {text}" for text in known)


def _provenance(manifest: CorpusManifest) -> str:
    commit = f", commit {manifest.git_commit}" if manifest.git_commit else ""
    return (
        f"- criadero {manifest.criadero_version}{commit}\n"
        f"- code of the corpus: sha256 {manifest.code_sha256}\n"
        f"- recipe, inputs and code together: {manifest.key}\n"
        "- the resolved recipe and the hash of every file: `manifest.json`\n"
        "- what happened to any document: `criadero corpus explain`"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
