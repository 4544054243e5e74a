"""The job of the observer is: to write down, from outside both hosts, what the guests say and which
QEMUs may run.

It listens on one serial socket per host and VM (a directory of the lab bind-mounted into that host,
so that it knows who speaks) and takes a sample of all QEMU processes of the observed VMs every 50
ms. It judges nothing: verdict.py does.

Run as `python3 -m lab.observer LAB_DIR HISTORY`, with LAB_DIR/vms/<name> naming the VMs to observe
(new ones are picked up) and LAB_DIR/hosts.json giving {"a": network namespace inode, …}. Ends on
SIGTERM.
"""

import json
import os
import pathlib
import selectors
import signal
import socket
import sys

from . import procs
from .history import HistoryWriter

SAMPLE_S = 0.05
REPEAT_SAMPLE_NS = (
    1_000_000_000  # an unchanged sample is written this often, as proof that the sampler lived
)
MAX_LINE_BYTES = 4096


class Sampler:
    """Finds the QEMUs of VMs by scanning /proc; remembers what each pid is, so that a scan stays
    cheap."""

    def __init__(self, hosts: dict[str, int]):
        self._host_of_net = {inode: host for host, inode in hosts.items()}
        self._known: dict[
            int, tuple | None
        ] = {}  # pid → (start, vm, host), or None for anything else

    def sample(self) -> dict[str, list[dict]]:
        pids = set(procs.all_pids())
        self._known = {pid: what for pid, what in self._known.items() if pid in pids}
        vms: dict[str, list[dict]] = {}
        for pid in sorted(pids):
            if pid not in self._known:
                self._identify(pid)
            what = self._known.get(pid)
            fields = procs.stat_fields(pid) if what else None
            if not fields or fields[0] in "ZX" or int(fields[19]) != what[0]:
                continue
            if fields[0] not in "Tt" and procs.dying(pid):
                continue
            vms.setdefault(what[1], []).append(
                {"host": what[2], "pid": pid, "start": what[0], "state": fields[0]}
            )
        return vms

    def _identify(self, pid: int) -> None:
        words = procs.command_line(pid)
        if not words:
            self._known[pid] = None  # a kernel thread or a zombie
            return
        if not os.path.basename(words[0]).startswith("qemu-system-"):
            # a process that is just being made becomes QEMU by exec with the same pid: look again
            # while it is young
            if "qemu" not in words[0] and not self._young(pid):
                self._known[pid] = None
            return
        host = self._host_of_net.get(procs.namespace_id(pid, "net"))
        name = next(
            (
                word.split(",")[0].removeprefix("guest=")
                for word in words
                if word.startswith("guest=")
            ),
            None,
        )
        start = procs.start_ticks(pid)
        self._known[pid] = (start, name, host) if host and name and start is not None else None

    @staticmethod
    def _young(pid: int) -> bool:
        start = procs.start_ticks(pid)
        hertz = os.sysconf("SC_CLK_TCK")
        return start is not None and procs.boottime_ns() / 1e9 - start / hertz < 10


class Observer:
    def __init__(self, lab_dir: pathlib.Path, history: pathlib.Path):
        self._dir = lab_dir
        self._writer = HistoryWriter(history)
        self._selector = selectors.DefaultSelector()
        self._hosts = json.loads((lab_dir / "hosts.json").read_text())
        self._sampler = Sampler(self._hosts)
        self._observed: set[str] = set()
        self._connections = 0
        self._last_sample: tuple[int, dict] = (0, {})
        self.stopping = False

    def run(self) -> None:
        due = procs.boottime_ns()
        while not self.stopping:
            now = procs.boottime_ns()
            if now >= due:
                self._observe_new_vms()
                self._take_sample()
                due = max(due + int(SAMPLE_S * 1e9), now)
            ready = self._selector.select(max(0.0, (due - procs.boottime_ns()) / 1e9))
            # one time for the whole batch: what became readable together has no order that could be
            # known
            t = procs.boottime_ns()
            for key, _ in ready:
                key.data(key.fileobj, t)

    def _observe_new_vms(self) -> None:
        for vm in set(os.listdir(self._dir / "vms")) - self._observed:
            for host in self._hosts:
                server = socket.socket(socket.AF_UNIX)
                path = self._dir / host / "observer" / f"{vm}.sock"
                path.unlink(missing_ok=True)
                server.bind(str(path))
                server.listen(8)
                server.setblocking(False)
                self._selector.register(server, selectors.EVENT_READ, self._accept(host, vm))
            self._observed.add(vm)

    def _accept(self, host: str, vm: str):
        def accept(server: socket.socket, t: int) -> None:
            connection, _ = server.accept()
            connection.setblocking(False)
            self._connections += 1
            source = {"host": host, "vm": vm, "conn": self._connections}
            self._writer.write("connect", t, **source)
            self._selector.register(connection, selectors.EVENT_READ, self._read(source))

        return accept

    def _read(self, source: dict):
        rest = b""

        def read(connection: socket.socket, t: int) -> None:
            nonlocal rest
            try:
                data = connection.recv(65536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._selector.unregister(connection)
                connection.close()
                self._writer.write("disconnect", t, **source)
                return
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-MAX_LINE_BYTES:]
            for line in lines:
                text = line.decode("ascii", "replace").strip("\r")
                if text:
                    self._writer.write("line", t, text=text, **source)

        return read

    def _take_sample(self) -> None:
        # the time after the scan: every QEMU listed was alive at some moment before it
        vms = self._sampler.sample()
        t = procs.boottime_ns()
        if vms != self._last_sample[1] or t - self._last_sample[0] >= REPEAT_SAMPLE_NS:
            self._writer.write("sample", t, vms=vms)
            self._last_sample = (t, vms)


def main() -> None:
    observer = Observer(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))

    def stop(*_):
        observer.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        os.nice(-10)  # an observer that is starved sees nothing
    except OSError:
        pass
    observer.run()


if __name__ == "__main__":
    main()
