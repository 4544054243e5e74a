"""The job of this module is: to find processes by what they belong to (namespace, name, start time)
and to end them by pid.

A pid alone names nothing for long: every pid that is stored goes with its start time (field 22 of
/proc/PID/stat, ticks).
"""

import os
import pathlib
import signal
import time


class LabError(RuntimeError):
    """The lab cannot do what was asked; the text says what happened and to what."""


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the state (index 0) on; None when there is no such process."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def state(pid: int) -> str | None:
    fields = stat_fields(pid)
    return fields[0] if fields else None


PF_EXITING = 0x4
SIGKILL_PENDING = 1 << (9 - 1)


def dying(pid: int) -> bool:
    """True once a process can only end: its state is R then, until the kernel has taken it apart,
    but nothing of its own runs any more."""
    fields = stat_fields(pid)
    if not fields or fields[0] in "ZX" or int(fields[6]) & PF_EXITING:
        return True
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    pending = [line.split()[1] for line in lines if line.startswith(("SigPnd:", "ShdPnd:"))]
    return any(int(mask, 16) & SIGKILL_PENDING for mask in pending)


def start_ticks(pid: int) -> int | None:
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def alive(pid: int, ticks: int | None = None) -> bool:
    """True while this very process (not a zombie, not a successor with the same pid) exists."""
    fields = stat_fields(pid)
    return bool(fields) and fields[0] not in "ZX" and (ticks is None or int(fields[19]) == ticks)


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def command_line(pid: int) -> list[str]:
    try:
        return [
            os.fsdecode(word)
            for word in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
        ]
    except OSError:
        return []


def executable_name(pid: int) -> str:
    words = command_line(pid)
    return os.path.basename(words[0]) if words else ""


def namespace_id(pid: int, kind: str) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def in_namespace(kind: str, inode: int) -> list[int]:
    """Processes inside a namespace, zombies left out."""
    return [pid for pid in all_pids() if namespace_id(pid, kind) == inode and alive(pid)]


def kill_namespace(inodes: dict[str, int], deadline_s: float = 20) -> int:
    """SIGKILLs every process in any of these namespaces ({"net": inode, …}), again until there is
    none. Returns how many."""
    killed: set[int] = set()
    deadline = time.monotonic() + deadline_s
    while True:
        left = {pid for kind, inode in inodes.items() for pid in in_namespace(kind, inode)} - {
            os.getpid()
        }
        if not left:
            return len(killed)
        if time.monotonic() > deadline:
            raise LabError(f"processes {sorted(left)} survived SIGKILL for {deadline_s} s")
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            except ProcessLookupError:
                pass
        time.sleep(0.01)


def end(pid: int, ticks: int | None, deadline_s: float = 10) -> None:
    """SIGTERM, then SIGKILL, for exactly this process; returns when it is gone."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not alive(pid, ticks):
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + deadline_s / 2
        while alive(pid, ticks) and time.monotonic() < deadline:
            time.sleep(0.02)


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_until(what: str, condition, deadline_s: float, poll_s: float = 0.05):
    """Polls until condition() is truthy and returns that value; LabError with `what` at the
    deadline."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"not within {deadline_s:g} s: {what}")
        time.sleep(poll_s)
