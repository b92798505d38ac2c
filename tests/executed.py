"""What torch executes, operator by operator, and which results are alive; for tests of what is kept."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Executed(TorchDispatchMode):
    """Counts operators by name inside a `with` block, backward passes included."""

    def __init__(self, *not_kept: torch.Tensor) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self._elsewhere = {tensor.untyped_storage()._cdata for tensor in not_kept}
        self._results: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(operator)] += 1
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._results[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return result

    def alive_bytes(self) -> int:
        """Bytes of results that something still refers to, but for views of tensors given at the start."""
        gc.collect()
        return sum(
            size
            for address, (storage, size) in self._results.items()
            if address not in self._elsewhere and not storage.expired()
        )
