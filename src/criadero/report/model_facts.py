"""What the records of a run say about a model, for the card of an export.

Entry point: `training_facts`. Run folder, manifests of shards, energy ledger and, for models made by others,
the licence their files state are read; what is missing or unreadable is not known, and never an error.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from criadero import files
from criadero.carbon.config import CarbonConfig
from criadero.carbon.ledger import read_segments, total
from criadero.checkpoint.manifest import read_manifest as read_checkpoint_manifest
from criadero.errors import CriaderoError
from criadero.formats.gguf_header import read_header
from criadero.formats.model_card import DataFacts, EnergyFacts, TrainingFacts
from criadero.formats.stored import StoredModel
from criadero.runs import METRICS, read_metrics
from criadero.shards.manifest import MANIFEST_NAME
from criadero.shards.manifest import read_manifest as read_shards_manifest

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*([A-Za-z0-9][\w.+-]{0,80})[ \t]*$", re.MULTILINE)
_LICENCE_NAME = re.compile(r"[A-Za-z0-9][\w.+-]{0,80}")
_MAX_CARD_BYTES = 1 << 20


def training_facts(stored: StoredModel) -> TrainingFacts:
    """Return what is known of how a model was made."""
    path = stored.path.absolute()
    if path.is_file():
        return TrainingFacts(licence=_licence_in_gguf(path))
    if stored.kind == "checkpoint":
        manifest = read_checkpoint_manifest(path)
        facts = TrainingFacts(step=manifest.step, tokens=manifest.tokens)
        return _of_run(facts, path.parent.parent)
    inputs = _inputs(path)
    facts = TrainingFacts(
        run=_text(inputs.get("run")),
        step=_whole(inputs.get("step")),
        tokens=_whole(inputs.get("tokens")),
        licence=_licence_in_card(path / "README.md"),
    )
    is_of_run = path.name == "model" and facts.run is not None
    return _of_run(facts, path.parent) if is_of_run else facts


def _of_run(facts: TrainingFacts, run: Path) -> TrainingFacts:
    """Add what a run folder knows of its weights of `facts.step`."""
    settings = _settings(run / "config.toml")
    facts = replace(facts, run=run.resolve().name, data=_data(settings))
    environment = _json_object(run / "environment.json")
    facts = replace(facts, git_commit=_text(environment.get("git_commit")))
    facts = replace(facts, energy=_energy(run, settings))
    for row in read_metrics(run / METRICS):
        if facts.step is None or row["step"] > facts.step:
            continue
        if "loss" in row:
            facts = replace(facts, loss=_number(row["loss"]))
        if "heldout_bits_per_byte" in row:
            bits = _number(row["heldout_bits_per_byte"])
            facts = replace(facts, heldout_bits_per_byte=bits, heldout_step=row["step"])
    return facts


def _data(settings: Mapping[str, Any]) -> tuple[DataFacts, ...]:
    data = settings.get("data")
    entries = data.get("sources") if isinstance(data, dict) else None
    sources = [entry for entry in entries or [] if isinstance(entry, dict)]
    facts = [_source(str(entry.get("name", "")), Path(str(entry.get("path", "")))) for entry in sources]
    weights = [_number(entry.get("weight")) for entry in sources]
    if all(weight is None for weight in weights):
        weights = [fact.tokens for fact in facts]  # without weights, sources count by their size
    known = [weight for weight in weights if weight is not None]
    if len(known) < len(weights) or not sum(known):
        return tuple(facts)
    return tuple(replace(f, weight=w / sum(known)) for f, w in zip(facts, known, strict=True))


def _source(name: str, folder: Path) -> DataFacts:
    try:
        train = folder / "train"
        split = read_shards_manifest(train if train.is_dir() else folder)
    except (CriaderoError, OSError):
        return DataFacts(name)
    return DataFacts(
        name,
        tokens=split.num_tokens,
        documents=split.num_documents,
        text_bytes=split.num_bytes,
        inputs=_input_names(folder / MANIFEST_NAME),
        sha256=split.fingerprint,
    )


def _input_names(path: Path) -> tuple[str, ...]:
    found = _json_object(path).get("inputs")
    entries = found if isinstance(found, list) else []
    return tuple(str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry)


def _energy(run: Path, settings: Mapping[str, Any]) -> EnergyFacts | None:
    try:
        segments = read_segments(run)
    except (CriaderoError, OSError):
        return None
    if not segments:
        return None
    totals = total(segments)
    carbon = settings.get("carbon")
    stated = _number(carbon.get("grid_kgco2e_per_kwh")) if isinstance(carbon, dict) else None
    grid = CarbonConfig().grid_kgco2e_per_kwh if stated is None else stated
    return EnergyFacts(
        kwh=totals.kwh,
        kgco2e=totals.kgco2e(grid),
        kgco2e_per_kwh=grid,
        measured_fraction=totals.measured_fraction,
    )


def _inputs(folder: Path) -> Mapping[str, Any]:
    """Return what the manifest of a model folder of ours says it was made from; else nothing."""
    found = _json_object(folder / "manifest.json").get("inputs")
    return found if isinstance(found, dict) else {}


def _licence_in_gguf(path: Path) -> str | None:
    found = read_header(path).metadata.get("general.license")
    return found if isinstance(found, str) and _LICENCE_NAME.fullmatch(found) else None


def _licence_in_card(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_CARD_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    front = _FRONT_MATTER.match(text.replace("\r\n", "\n"))
    found = _LICENCE.search(front[1]) if front else None
    return found[1] if found else None


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _json_object(path: Path) -> Mapping[str, Any]:
    try:
        found = files.read_json(path)
    except CriaderoError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
