"""Throughput: tokens per second, model FLOPs utilisation, time left, peak memory.

MFU is reported by both conventions: 6N, and 6N + 12 * layers * dim * seq (PaLM, appendix B). A device
that is not in the table has an unknown peak and therefore no MFU.
"""

from __future__ import annotations

import resource
import time
from collections import deque

import torch

from criadero.model.config import ModelConfig
from criadero.model.flops import flops_per_token
from criadero.planner.devices import peak_flops_per_second


def peak_memory_bytes(device: torch.device) -> int:
    """Return the peak of allocated CUDA memory, or of this process's resident set on CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Speedometer:
    """Rates over the last steps, by the monotonic clock.

    Args:
        world_size: all ranks, whether they share out the tokens or the products.
    """

    def __init__(self, config: ModelConfig, *, seq_len: int, world_size: int, device: torch.device) -> None:
        self._flops_6n = flops_per_token(config, seq_len, attention=False)
        self._flops_palm = flops_per_token(config, seq_len, attention=True)
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        peak = peak_flops_per_second(name)
        self._peak = None if peak is None else peak * world_size
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=21)
        self._tokens = 0
        self._first_step_is_in = True

    def step(self, tokens: int) -> dict[str, float | None]:
        """Count a step's tokens; return step_seconds, tokens_per_second, flops_per_second and both MFU."""
        if self._first_step_is_in and len(self._marks) == 2:
            self._marks.popleft()  # it took far longer than those to come: caches fill, layers are compiled
            self._first_step_is_in = False
        self._tokens += tokens
        now = time.monotonic()
        step_seconds = now - self._marks[-1][0]
        self._marks.append((now, self._tokens))
        (start, tokens_then) = self._marks[0]
        rate = (self._tokens - tokens_then) / max(now - start, 1e-9)
        return {"step_seconds": step_seconds, **self.rates(rate)}

    def rates(self, tokens_per_second: float) -> dict[str, float | None]:
        """Return tokens_per_second, and what follows from it: flops_per_second and both MFU."""
        return {
            "tokens_per_second": tokens_per_second,
            "flops_per_second": tokens_per_second * self._flops_6n,
            "mfu_6n": self._share(tokens_per_second * self._flops_6n),
            "mfu_palm": self._share(tokens_per_second * self._flops_palm),
        }

    @property
    def seconds_per_step(self) -> float:
        """Mean duration of the last steps."""
        return (self._marks[-1][0] - self._marks[0][0]) / max(1, len(self._marks) - 1)

    def exclude_pause(self) -> None:
        """Start counting time anew, after something that was not training."""
        self._marks.append((time.monotonic(), self._tokens))
        while len(self._marks) > 1:
            self._marks.popleft()

    def _share(self, flops_per_second: float) -> float | None:
        return None if self._peak is None else flops_per_second / self._peak
