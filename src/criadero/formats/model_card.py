"""The card of an exported model: its README.md, with what is known of how it was made.

Entry point: `model_card`. The facts come from outside (the run folder, manifests, the energy ledger); what
nobody recorded is written as "not known" rather than left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from criadero import files
from criadero.formats.stored import StoredModel

NOT_KNOWN = "not known"
_INPUTS_SHOWN = 10


@dataclass(frozen=True)
class DataFacts:
    """One source of the training data; sizes are those of its train split, before any mixing.

    Attributes:
        weight: share of the samples drawn from it, 0 to 1.
        inputs: names of the files it was made from.
        sha256: over all its shards.
    """

    name: str
    weight: float | None = None
    tokens: int | None = None
    documents: int | None = None
    text_bytes: int | None = None
    inputs: tuple[str, ...] = ()
    sha256: str | None = None


@dataclass(frozen=True)
class EnergyFacts:
    """What all attempts of the run used together.

    Attributes:
        measured_fraction: part of it that hardware counters gave, 0 to 1; the rest is estimated.
    """

    kwh: float
    kgco2e: float
    kgco2e_per_kwh: float
    measured_fraction: float


@dataclass(frozen=True)
class TrainingFacts:
    """What is known of a model's making; None where nothing is.

    Attributes:
        step, tokens: how far training had come at these weights.
        loss: of the training batch at the last step up to there, nats per token.
        heldout_bits_per_byte, heldout_step: the last evaluation up to there.
        git_commit: of the program that trained it.
        licence: of the weights, as their source states it.
    """

    run: str | None = None
    step: int | None = None
    tokens: int | None = None
    loss: float | None = None
    heldout_bits_per_byte: float | None = None
    heldout_step: int | None = None
    data: tuple[DataFacts, ...] = ()
    energy: EnergyFacts | None = None
    git_commit: str | None = None
    licence: str | None = None


def model_card(stored: StoredModel, facts: TrainingFacts, *, name: str, dtype: torch.dtype) -> str:
    """Return the card as Markdown, with the front matter that Hugging Face reads.

    Args:
        stored: the model that is exported.
        name: what it is called.
        dtype: precision of the exported weights.
    """
    licence = [f"license: {facts.licence}"] if facts.licence else []
    front = ["---", *licence, "library_name: transformers", "pipeline_tag: text-generation", "---"]
    sections = [
        "\n".join(front),
        f"# {name}",
        "## Model\n\n" + _table(_model_rows(stored, dtype)),
        "## Training\n\n" + _table(_training_rows(facts)),
        "## Training data\n\n" + _data(facts.data),
        "## Evaluation\n\n" + _table(_evaluation_rows(facts)),
        "## Energy\n\n" + _energy(facts.energy),
        "## Licence\n\n" + _licence(facts.licence),
    ]
    return "\n\n".join(sections) + "\n"


def _model_rows(stored: StoredModel, dtype: torch.dtype) -> dict[str, str]:
    config = stored.config
    parameters = sum(torch.Size(tensor.shape).numel() for tensor in stored.tensors.values())
    return {
        "architecture": "LLaMA decoder",
        "parameters": f"{parameters:,}",
        "layers": f"{config.num_layers}",
        "width": f"{config.dim}, feed-forward {config.hidden_dim}",
        "heads": f"{config.num_heads} of width {config.head_dim}, {config.num_kv_heads} for keys and values",
        "context": f"{config.max_seq_len:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "precision": str(dtype).removeprefix("torch."),
        "made from": stored.kind,
    }


def _training_rows(facts: TrainingFacts) -> dict[str, str]:
    return {
        "run": facts.run or NOT_KNOWN,
        "steps": _count(facts.step),
        "tokens": _count(facts.tokens),
        "loss, nats per token": _decimal(facts.loss),
        "program": f"criadero at {facts.git_commit}" if facts.git_commit else NOT_KNOWN,
    }


def _evaluation_rows(facts: TrainingFacts) -> dict[str, str]:
    at = f" (step {facts.heldout_step:,})" if facts.heldout_step is not None else ""
    return {
        "held-out text, bits per byte": _decimal(facts.heldout_bits_per_byte) + at,
        "benchmarks": NOT_KNOWN,
    }


def _data(sources: Sequence[DataFacts]) -> str:
    if not sources:
        return f"{NOT_KNOWN.capitalize()}."
    head = "| source | share | tokens | documents | text |\n| --- | --- | --- | --- | --- |"
    rows = [
        f"| {_cell(s.name)} | {NOT_KNOWN if s.weight is None else f'{s.weight:.1%}'} | {_count(s.tokens)} | "
        f"{_count(s.documents)} | {NOT_KNOWN if s.text_bytes is None else files.format_bytes(s.text_bytes)} |"
        for s in sources
    ]
    lines = [_provenance(source) for source in sources]
    return "\n".join([head, *rows, "", *lines])


def _provenance(source: DataFacts) -> str:
    shown = ", ".join(f"`{name}`" for name in source.inputs[:_INPUTS_SHOWN]) or NOT_KNOWN
    more = len(source.inputs) - _INPUTS_SHOWN
    made = f"made from {shown}" + (f" and {more} more files" if more > 0 else "")
    return f"- {source.name}: {made}; licence {NOT_KNOWN}; sha256 of the shards {source.sha256 or NOT_KNOWN}"


def _energy(energy: EnergyFacts | None) -> str:
    if energy is None:
        return f"{NOT_KNOWN.capitalize()}."
    measured = energy.measured_fraction
    return (
        f"{energy.kwh:.4g} kWh for all attempts of the run, {measured:.0%} of it measured and "
        f"{1 - measured:.0%} estimated; {energy.kgco2e:.4g} kg CO2e at "
        f"{energy.kgco2e_per_kwh:g} kg per kWh."
    )


def _licence(licence: str | None) -> str:
    if licence is not None:
        return f"`{licence}`, as the source of the weights states it."
    return f"{NOT_KNOWN.capitalize()}. State here under which terms the weights may be used."


def _table(rows: Mapping[str, str]) -> str:
    lines = ["| | |", "| --- | --- |", *(f"| {key} | {_cell(value)} |" for key, value in rows.items())]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _count(value: int | None) -> str:
    return NOT_KNOWN if value is None else f"{value:,}"


def _decimal(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.4g}"
