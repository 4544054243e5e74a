"""The job of this module is: the history file, what the observer and the lab saw, one JSON object a
line.

Every record has "t" (CLOCK_BOOTTIME ns) and "kind":
  line        host, vm, conn, text     one line of a guest's serial port
  connect     host, vm, conn           a QEMU opened its serial port; disconnect: it closed it
  sample      vms {vm: [{host, pid, start, state}]}   all QEMUs of observed VMs, at least once a
              second and at each change
  mark        name, …                  what the lab did: "cut" (host), "boot" (host), "link" (…)
Several processes append; each record is one write, so lines never mix. Order in the file is not
order in time: sort by t.
"""

import json
import os
import pathlib

from .procs import boottime_ns

HISTORY_NAME = "history.jsonl"


class HistoryWriter:
    def __init__(self, path: str | os.PathLike):
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, kind: str, t: int | None = None, **fields) -> int:
        t = boottime_ns() if t is None else t
        os.write(self._fd, (json.dumps({"t": t, "kind": kind, **fields}) + "\n").encode())
        return t

    def close(self) -> None:
        os.close(self._fd)


def read_history(path: str | os.PathLike) -> list[dict]:
    """All complete records, in order of time."""
    text = pathlib.Path(path).read_text(encoding="utf-8")
    complete = text[: text.rfind("\n") + 1]
    return sorted(
        (json.loads(line) for line in complete.splitlines()), key=lambda record: record["t"]
    )


class HistoryTail:
    """Reads what was appended since the last call."""

    def __init__(self, path: str | os.PathLike):
        self._file = open(path, "rb")
        self._rest = b""

    def read(self) -> list[dict]:
        data = self._rest + self._file.read()
        complete, _, self._rest = data.rpartition(b"\n")
        return [json.loads(line) for line in complete.splitlines()]

    def close(self) -> None:
        self._file.close()
