"""Numbers in the guides are those that the benchmarks saved."""

from __future__ import annotations

import json

from documented import ROOT


def test_the_servers_table_is_what_was_measured():
    clients = json.loads((ROOT / "benchmarks" / "results" / "serve.json").read_text())["clients"]
    expected = []
    for count, measured in clients.items():
        ours, theirs = (measured["systems"][name] for name in ("criadero", "llamacpp"))
        cells = [
            *(system["tokens_per_second"] for system in (ours, theirs)),
            *(system["first_token_ms"]["median"] for system in (ours, theirs)),
            *(system["between_tokens_ms"]["p99"] for system in (ours, theirs)),
        ]
        expected.append(" | ".join([f"| {count}", *(f"{cell:,.0f}" for cell in cells)]) + " |")
    guide = (ROOT / "docs" / "guides" / "serve.md").read_text()
    assert expected == [line for line in guide.splitlines() if line.startswith(("| 1 ", "| 8 ", "| 32 "))]
