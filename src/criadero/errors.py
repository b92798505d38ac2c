"""Every error a user can meet, as one tree; library code raises nothing else on purpose.

    CriaderoError                  exit 1   base: message and hint
    ├── UsageError                 exit 2   a command line that cannot be understood
    ├── ConfigError                exit 2   a config file or override; lists all its faults at once
    ├── DataError                  exit 1   documents, token shards, samples
    │   └── TokenizerError         exit 1   tokenizer files, training, exactness
    ├── FormatError                exit 1   weights files made by others: malformed, unsupported, unsafe
    ├── CheckpointError            exit 1   our own checkpoints: incomplete, damaged, of another run
    ├── RunError                   exit 1   run folders: locked, not writable, not found
    ├── ResourceError              exit 1   not enough disk, memory or devices
    ├── DistributedError           exit 1   ranks that disagree, die or hang
    ├── NumericsError              exit 1   loss or gradient that is not finite
    └── StoppedEarly               exit 75  asked to stop; everything is saved, the same command goes on

A message says what is wrong, the value found, the value expected and where; the hint says what to do.
"""

from __future__ import annotations


class CriaderoError(Exception):
    """Base of the tree.

    Args:
        message: one sentence without a final full stop; literals in backticks.
        hint: what to do about it, shown on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class UsageError(CriaderoError):
    """A command line that cannot be understood."""

    exit_code = 2


class ConfigError(CriaderoError):
    """A config file or override that cannot be used."""

    exit_code = 2


class DataError(CriaderoError):
    """Documents, token shards or samples that are missing, damaged or do not fit together."""


class TokenizerError(DataError):
    """A tokenizer that cannot be read, trained or trusted."""


class FormatError(CriaderoError):
    """A weights file made by somebody else that is malformed, unsupported or unsafe."""


class CheckpointError(CriaderoError):
    """A checkpoint of ours that is incomplete, damaged or belongs to another run."""


class RunError(CriaderoError):
    """A run folder that is locked, not writable or not found."""


class ResourceError(CriaderoError):
    """Not enough disk, memory or devices for what was asked."""


class DistributedError(CriaderoError):
    """Ranks that disagree, died or hang."""


class NumericsError(CriaderoError):
    """A loss or gradient that is not finite."""


class StoppedEarly(CriaderoError):
    """Asked to stop; everything is saved and the same command goes on."""

    exit_code = 75
