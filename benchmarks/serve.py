"""Concurrent clients that stream from a server on the CPU: `criadero serve` and llama.cpp's, taking turns.

One GGUF file and two real servers of it, each in its own process with the same threads and 32 places for
answers. 1, 8 and 32 clients each ask another question at once and read the answer as it is written: greedy,
as many tokens for all, with the tokens that could end it forbidden to both. Then one client asks twice
about the same long text, which a server may know the second time. Medians over rounds in which the servers
take turns; the last line is one JSON object, whose `ours`, `peers` and `ratio` are tokens a second of 32
clients. An answer that lacks a token, its usage or its end is `lost`; if one of ours is, the exit code is
1.

    python benchmarks/serve.py MODEL.gguf [--rounds 5] [--tokens 128] [--alone] [--save]
"""

from __future__ import annotations

import argparse
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import permutations
from pathlib import Path
from typing import Any

import gguf

from process import circumstances, print_result
from streaming_client import Answer, ask_all

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "serve.json"
OURS, PEER = "criadero", "llamacpp"
LLAMA_SERVER = HERE / "peers" / "llamacpp" / ".venv" / "bin" / "llama-server"
CLIENTS = (1, 8, 32)
PLACES = max(CLIENTS)
PLACE_TOKENS = 2048
START_SECONDS = 300.0  # the C++ kernel may have to be compiled first

# Any two make a question, so that no round repeats one and finds it in a cache.
THINGS = (
    "a bicycle", "a sailing ship", "the printing press", "a lighthouse", "a steam engine", "a compass",
    "a microscope", "the telegraph", "a windmill", "a violin", "a glacier", "a volcano", "a coral reef",
    "a desert", "a river delta", "the Moon", "a comet", "photosynthesis", "a beehive", "an octopus",
    "a library", "a market", "a parliament", "a school", "the Roman army", "a medieval guild",
)  # fmt: skip
LONG_TEXT_CHARACTERS = 6000


class Server:
    """A server in a process of its own, ready to be asked."""

    def __init__(
        self, name: str, command: Sequence[str | Path], *, port: int, threads: int, log: Path
    ) -> None:
        self.name = name
        self.port = port
        self._log = log
        with log.open("wb") as said:
            self._process = subprocess.Popen(
                command,
                stdout=said,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            )

    def wait(self) -> None:
        """Return when it has its model; end the script if it ends or takes too long."""
        end = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                said = self._log.read_text(errors="replace")[-2000:]
                sys.exit(f"{self.name} does not answer; the last it said:\n{said}")
            time.sleep(0.1)

    def peak_rss_bytes(self) -> int | None:
        """Return the most memory it has held; None where that cannot be read."""
        path = Path(f"/proc/{self._process.pid}/status")
        for line in path.read_text().splitlines() if path.is_file() else ():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return None

    def stop(self) -> None:
        """End it and wait until what it held is free."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def start(name: str, file: Path, *, threads: int, log: Path) -> Server:
    """Start a server; it may not have its model yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    if name == OURS:
        command = [sys.executable, "-m", "criadero", "serve", file, *address, "--device", "cpu"]
        return Server(name, command, port=port, threads=threads, log=log)
    if not LLAMA_SERVER.exists():
        sys.exit(f"{LLAMA_SERVER} is missing: run `make peers` first")
    sizes = {"-np": PLACES, "-c": PLACES * PLACE_TOKENS, "-t": threads, "-tb": threads}
    options = [str(word) for pair in sizes.items() for word in pair]
    command = [LLAMA_SERVER, "-m", file, *address, *options, "--cont-batching", "--offline"]
    return Server(name, command, port=port, threads=threads, log=log)


def control_ids(file: Path) -> list[int]:
    """Return the ids of a GGUF file that stand for no text, those that end an answer among them."""
    types = gguf.GGUFReader(file).fields["tokenizer.ggml.token_type"].contents()
    return [token_id for token_id, kind in enumerate(types) if kind == gguf.TokenType.CONTROL]


def body(question: str, *, tokens: int, forbidden: Sequence[int]) -> dict[str, Any]:
    """Return what a client sends; both servers get the same."""
    return {
        "model": "model",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logit_bias": {str(token_id): -100 for token_id in forbidden},
    }


def questions() -> list[str]:
    """Return all there are, in an order that is the same each time."""
    pairs = list(permutations(THINGS, 2))
    random.Random(0).shuffle(pairs)
    return [f"Explain what {one} and {other} have in common and how they differ." for one, other in pairs]


def long_question(number: int) -> str:
    """Return a question about a long text that differs from those of other rounds from its beginning on."""
    texts = sorted((HERE.parent / "docs" / "adr").glob("*.md"))
    text = "\n".join(path.read_text(encoding="utf-8") for path in texts)[:LONG_TEXT_CHARACTERS]
    return f"{number + 2}. What was decided here, and why?\n\n{text}"


Rounds = dict[int, dict[str, list[list[Answer]]]]
"""Of each number of clients and each system: the answers of each round."""


def measure(
    servers: Sequence[Server], *, rounds: int, tokens: int, forbidden: Sequence[int]
) -> tuple[Rounds, dict[str, list[list[Answer]]], float]:
    """Return the answers to questions, those to the long one, and the clients' share of one core."""
    found: Rounds = {clients: {server.name: [] for server in servers} for clients in CLIENTS}
    twice: dict[str, list[list[Answer]]] = {server.name: [] for server in servers}
    unasked = iter(questions())
    processor, clock = time.process_time(), time.perf_counter()
    for number in range(-1, rounds):  # the first one warms up
        for clients in CLIENTS:
            asked = [next(unasked) for _ in range(clients)]
            bodies = [body(question, tokens=tokens, forbidden=forbidden) for question in asked]
            for server in servers:
                answers = ask_all(server.port, bodies)
                found[clients][server.name] += [answers] if number >= 0 else []
                print(
                    f"round {number + 1} of {rounds}, {clients} clients, {server.name}: "
                    f"{rate(answers):,.0f} tokens/s",
                    flush=True,
                )
        once = [body(long_question(number), tokens=8, forbidden=forbidden)]
        for server in servers:
            both = ask_all(server.port, once) + ask_all(server.port, once)
            twice[server.name] += [both] if number >= 0 else []
    return found, twice, (time.process_time() - processor) / (time.perf_counter() - clock)


def rate(answers: Sequence[Answer]) -> float:
    """Return tokens a second of all together, from the first question to the last end."""
    seconds = max(answer.ended for answer in answers) - min(answer.sent for answer in answers)
    return sum(answer.completion_tokens for answer in answers) / seconds if seconds else 0.0


def fairness(answers: Sequence[Answer]) -> float:
    """Return the slowest client's tokens a second over the fastest's."""
    rates = [answer.tokens_per_second for answer in answers]
    return min(rates) / max(rates) if max(rates) else 0.0


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """Return median and 99th percentile (nearest rank) in milliseconds; None where nothing came."""
    if not seconds:
        return {"median": None, "p99": None}
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return {"median": round(statistics.median(ordered) * 1e3, 2), "p99": round(p99 * 1e3, 2)}


def figures(rounds: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Return what one system did for one number of clients."""
    answers = [answer for answers in rounds for answer in answers]
    came = [answer for answer in answers if answer.texts]
    texts = sum(len(answer.texts) for answer in answers)
    fair = [fairness(answers) for answers in rounds]
    return {
        "tokens_per_second": round(statistics.median(rate(answers) for answers in rounds), 1),
        "first_token_ms": spread([answer.first_seconds for answer in came]),
        "between_tokens_ms": spread([gap for answer in came for gap in answer.gaps_seconds]),
        "tokens_per_event": round(sum(a.completion_tokens for a in answers) / max(texts, 1), 3),
        "fairness": round(statistics.median(fair), 3),
        "fairness_worst": round(min(fair), 3),
        "prompt_tokens": sum(answer.prompt_tokens for answer in answers),
        "answers": len(answers),
        "lost": [answer.problem for answer in answers if answer.problem],
        "runs": [round(rate(answers), 1) for answers in rounds],
    }


def reuse(rounds: Sequence[Sequence[Answer]]) -> dict[str, Any]:
    """Return how soon a long prompt's first token came, the first time and the second."""
    whole = [(first, second) for first, second in rounds if first.texts and second.texts]
    ratios = [second.first_seconds / first.first_seconds for first, second in whole]
    return {
        "first_ms": spread([first.first_seconds for first, _ in whole])["median"],
        "second_ms": spread([second.first_seconds for _, second in whole])["median"],
        "ratio": round(statistics.median(ratios), 4) if ratios else None,
        "prompt_tokens": max(answer.prompt_tokens for pair in rounds for answer in pair),
        "lost": [answer.problem for pair in rounds for answer in pair if answer.problem],
    }


def compared(systems: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Add tokens a second of ours over the peer's in the same round: median and spread."""
    if PEER not in systems:
        return {"systems": systems}
    ours, theirs = systems[OURS]["runs"], systems[PEER]["runs"]
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True) if other]
    return {
        "ratio": round(statistics.median(ratios), 3) if ratios else None,
        "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None,
        "systems": systems,
    }


def run(file: Path, names: Sequence[str], *, threads: int, rounds: int, tokens: int) -> dict[str, Any]:
    """Measure everything and return the result."""
    load = os.getloadavg()[0]  # near 0 on a machine that does nothing else
    with ExitStack() as stack:
        logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [start(name, file, threads=threads, log=logs / name) for name in names]
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            server.wait()
            print(f"{server.name} is ready", flush=True)
        found, twice, share = measure(servers, rounds=rounds, tokens=tokens, forbidden=control_ids(file))
        peaks = {server.name: server.peak_rss_bytes() for server in servers}
    clients = {
        str(number): compared({name: figures(answers) for name, answers in systems.items()})
        for number, systems in found.items()
    }
    last = clients[str(max(CLIENTS))]
    return {
        "ours": last["systems"][OURS]["tokens_per_second"],
        "peers": {name: last["systems"][name]["tokens_per_second"] for name in names if name != OURS},
        "ratio": last.get("ratio"),
        "runs": {name: system["runs"] for name, system in last["systems"].items()},
        "clients": clients,
        "prefix_reuse": {name: reuse(answers) for name, answers in twice.items()},
        "tokens": tokens,
        "client_cpu_share": round(share, 3),
        "peak_rss_bytes": peaks,
        "load_before": round(load, 1),
        "file": file.name,
        **circumstances(threads),
    }


def report(result: dict[str, Any]) -> None:
    """Print what a reader wants to see of it."""
    for number, compared_here in result["clients"].items():
        for name, found in compared_here["systems"].items():
            first, between = found["first_token_ms"], found["between_tokens_ms"]
            print(
                f"{number} clients, {name}: {found['tokens_per_second']} tokens/s; first token "
                f"{first['median']} ms, p99 {first['p99']}; between tokens {between['median']} ms, "
                f"p99 {between['p99']}; slowest over fastest {found['fairness']}; lost {len(found['lost'])}"
            )
        if compared_here.get("ratio"):
            low, high = compared_here["ratio_spread"]
            print(f"{number} clients: criadero is {compared_here['ratio']}x {PEER} ({low} to {high})")
    for name, found in result["prefix_reuse"].items():
        print(
            f"{found['prompt_tokens']} tokens of prompt, {name}: first token after {found['first_ms']} ms, "
            f"the second time after {found['second_ms']} ms"
        )


def lost(result: dict[str, Any], name: str) -> list[str]:
    """Return what a system lost, in every part."""
    parts = [compared_here["systems"][name] for compared_here in result["clients"].values()]
    return [problem for part in [*parts, result["prefix_reuse"][name]] for problem in part["lost"]]


def main() -> None:
    """Measure the servers and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="MODEL.gguf")
    parser.add_argument("--alone", action="store_true", help="no peer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.relative_to(HERE.parent)}")
    options = parser.parse_args()
    names = [OURS] if options.alone else [OURS, PEER]
    result = run(
        options.file.resolve(), names, threads=options.threads, rounds=options.rounds, tokens=options.tokens
    )
    report(result)
    print_result(result, RESULTS, save=options.save)
    if problems := lost(result, OURS):
        sys.exit(f"criadero lost {len(problems)} answers, the first: {problems[0]}")


if __name__ == "__main__":
    main()
