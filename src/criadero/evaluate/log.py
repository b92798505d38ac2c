"""The results of single items, appended as they come; a run that was killed goes on from there.

Entry point: `ItemLog`. The first line says what the results depend on; a log of something else is not added
to. A last line that was cut off by a kill is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from criadero.errors import RunError
from criadero.evaluate.task import Record
from criadero.files import append_line

FORMAT = "criadero-evaluation"
FORMAT_VERSION = 1


class ItemLog:
    """The log of one task.

    Args:
        path: of a file that may be there already.
        about: what the results depend on; JSON values.

    Raises:
        RunError: the file is a log of something else, or damaged before its last line.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.records: dict[str, Record] = {}
        self._header = {"format": FORMAT, "version": FORMAT_VERSION, **about}
        if not path.exists() or not self._read():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            append_line(path, json.dumps(self._header, ensure_ascii=False), durable=True)

    def add(self, record: Record) -> None:
        """Append a record."""
        append_line(self.path, json.dumps(asdict(record), ensure_ascii=False), durable=False)
        self.records[record.id] = record

    def _read(self) -> bool:
        """Read what is there; tell whether there is a header."""
        data = self.path.read_bytes()
        whole = data.rpartition(b"\n")[0] + b"\n" if b"\n" in data else b""
        if len(whole) < len(data):
            with self.path.open("r+b") as stream:
                stream.truncate(len(whole))
        lines = whole.splitlines()
        if not lines:
            return False
        try:
            header = json.loads(lines[0])
            for line in lines[1:]:
                record = _record(json.loads(line))
                self.records[record.id] = record
        except (ValueError, TypeError, KeyError) as problem:
            raise RunError(
                f"`{self.path}` is damaged: {problem}", hint="remove it; its items are evaluated again"
            ) from None
        if header != json.loads(json.dumps(self._header)):
            raise RunError(
                f"`{self.path}` holds results of another model, other settings or other data",
                hint="choose another --out",
            )
        return True


def _record(value: Any) -> Record:
    if set(value) != {field.name for field in fields(Record)}:
        raise ValueError(f"a line with {', '.join(value)}")
    known: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in value.items()}
    return Record(**known)
