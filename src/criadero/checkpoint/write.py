"""The tensor files of one checkpoint, through `torch.distributed.checkpoint` and its safetensors storage.

Entry points: `write_tensors`, then `describe_files` on each rank. Only tensors go in: nothing is pickled to
disk, and the storage's own metadata is not relied on, because the manifest describes every slice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.state_dict_saver import save

from criadero import files
from criadero.checkpoint.manifest import FileEntry, Slice
from criadero.checkpoint.shard import Shard
from criadero.errors import CheckpointError

# A rank serialises one file at a time in memory, so this bounds what saving needs beyond the copy.
_MAX_FILE_BYTES = 1 << 30


@dataclass(frozen=True)
class RankFiles:
    """What one rank wrote: its files, and the slices of tensors in them."""

    files: dict[str, FileEntry]
    slices: dict[str, Slice]


def write_tensors(folder: Path, shards: Mapping[str, Shard], group: dist.ProcessGroup) -> None:
    """Write every rank's shards into `folder`, replicas once; collective over `group`.

    Raises:
        OSError: writing failed on some rank; raised on all.
        CheckpointError: anything else went wrong on some rank; raised on all.
    """
    writer = _Writer(
        path=str(folder), save_distributed=True, fqn_to_index_mapping=_file_numbers(shards, group.size())
    )
    try:
        save(dict(shards), storage_writer=writer, planner=_Planner(), process_group=group)
    except CheckpointException as problem:
        causes = [cause for cause, _ in problem.failures.values()]
        failed_write = next((cause for cause in causes if isinstance(cause, OSError)), None)
        raise failed_write or CheckpointError(f"the tensors could not be written: {causes[0]}") from problem


def describe_files(folder: Path, shards: Mapping[str, Shard], rank: int) -> RankFiles:
    """Hash the files that `rank` wrote and say which slices they hold."""
    entries: dict[str, FileEntry] = {}
    slices: dict[str, Slice] = {}
    for path in sorted(folder.glob(f"shard-{rank + 1:05d}-*.safetensors")):
        entries[path.name] = FileEntry(size_bytes=path.stat().st_size, sha256=files.sha256_file(path))
        with safe_open(path, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - not a mapping
                slices[name] = Slice(path.name, shards[name].offsets, tuple(shards[name].local.shape))
    return RankFiles(entries, slices)


def _file_numbers(shards: Mapping[str, Shard], world_size: int) -> dict[str, int]:
    """Spread the tensors over files 1, 2, ... of about equal bounded size per rank, the same on all ranks."""
    numbers: dict[str, int] = {}
    number, filled_bytes = 1, 0
    for name, shard in shards.items():
        size_bytes = shard.global_bytes // world_size
        if filled_bytes and filled_bytes + size_bytes > _MAX_FILE_BYTES:
            number, filled_bytes = number + 1, 0
        numbers[name] = number
        filled_bytes += size_bytes
    return numbers


class _Planner(DefaultSavePlanner):
    """Plans over `Shard` values, which are flat already and are what is written."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> torch.Tensor:
        return cast(Shard, self.state_dict[index.fqn]).local


class _Files(FileSystem):
    """Files whose completion tests can interrupt; the storage fsyncs each before it is closed."""

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with super().create_stream(path, mode) as stream:
            yield stream
        files.fault_point("checkpoint-file-written")


class _Writer(HuggingFaceStorageWriter):
    """The safetensors storage over `_Files`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fs = _Files()
        self.per_thread_copy_ahead = 0  # the shards are in main memory already

    @property
    def metadata_path(self) -> str:
        # The base class looks for its index file in the current folder, whatever lies there.
        return str(Path(self.path) / "model.safetensors.index.json")
