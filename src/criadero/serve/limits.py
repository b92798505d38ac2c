"""Every limit of the server, in one place.

Entry point: `Limits`. Sizes are in bytes, times in seconds. What a model's context limits is not here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one client, or all together, may ask of a server."""

    body_bytes: int = 1 << 20
    messages: int = 256
    choices: int = 8
    """Most answers to one prompt (`n`)."""
    prompts: int = 64
    """Most prompts of one completion request."""
    stops: int = 4
    stop_characters: int = 64
    logit_biases: int = 300
    queued: int = 64
    """Requests that wait for the model; one more is answered 429."""
    connections: int = 1024
    header_seconds: float = 10.0
    body_seconds: float = 30.0
    stall_seconds: float = 30.0
    """How long a client may take nothing of an answer that is being written."""
    request_seconds: float = 600.0
    """How long an answer may take, from the queue to its end."""
    drain_seconds: float = 30.0
    """How long answers may go on after SIGTERM."""
    ping_seconds: float = 15.0
    """Between comment lines in a stream that has nothing to say."""
