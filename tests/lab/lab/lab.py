"""The job of Lab is: two hosts, a witness and a switch on this machine, as many labs side by side
as wanted.

Everything of a lab is in /var/tmp/havm-lab-<name>/ (or under $HAVM_LAB_DIR), in network namespaces
called havm-<name>-… and in processes inside them; down() removes all of it. A lab belongs to the
process that made it: when that one died, Lab.cleanup_stale() of any later run removes it. A lab
made with keep=True stays until down() or the machine's next boot.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import time

from . import procs
from .history import HISTORY_NAME, HistoryTail, HistoryWriter, read_history
from .host import Host
from .network import Network
from .procs import LabError, wait_until

PREFIX = "havm-lab-"
MAX_NAME = 24
CABLES_BEFORE_POWER_S = 0.3
MAX_EVIDENCE_BYTES = 64 << 20
MACHINE_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def labs_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("HAVM_LAB_DIR", "/var/tmp"))


class Lab:
    def __init__(self, name: str | None = None):
        self.name = name or f"{os.getpid()}"
        if not re.fullmatch(r"[a-z0-9-]+", self.name) or len(self.name) > MAX_NAME:
            raise LabError(f"a lab's name is 1 to {MAX_NAME} of a-z, 0-9 and -, not '{self.name}'")
        self.dir = labs_dir() / f"{PREFIX}{self.name}"
        self.network = Network(self.name)
        self.a = Host("a", self.dir, self.network.namespaces["a"])
        self.b = Host("b", self.dir, self.network.namespaces["b"])
        self.hosts = {"a": self.a, "b": self.b}
        self.history_path = self.dir / HISTORY_NAME
        self._history: HistoryWriter | None = None

    # --- life -------------------------------------------------------------------------------------

    def up(self, *, keep: bool = False, boot: bool = True, honest_disk: bool = False) -> "Lab":
        """`honest_disk`: the hosts' disks lose nothing at a power cut."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root: namespaces, mounts and libvirtd")
        if self.dir.exists():
            raise LabError(f"lab '{self.name}' exists already ({self.dir})")
        self.dir.mkdir(parents=True)
        self._write_owner(keep)
        try:
            self.network.create()
            (self.dir / "vms").mkdir()
            (self.dir / "log").mkdir()
            for host in self.hosts.values():
                host.install(honest_disk=honest_disk)
            self._start_observer()
            if boot:
                self.boot_hosts()
        except BaseException:
            self.down()
            raise
        return self

    @classmethod
    def attach(cls, name: str) -> "Lab":
        lab = cls(name)
        if not (lab.dir / "owner.json").exists():
            raise LabError(f"there is no lab '{name}' under {labs_dir()}")
        return lab

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, *_) -> None:
        self.down()

    def boot_hosts(self) -> None:
        for host in self.hosts.values():
            self.boot(host)

    def down(self) -> None:
        """Ends and removes everything of this lab; also half-made or half-removed ones."""
        inodes = [self.network.inode(part) for part in self.network.namespaces]
        for inode in filter(None, inodes):
            procs.kill_namespace({"net": inode})
        self._end_recorded("observer.json")
        self.network.destroy()
        if self._history:
            self._history.close()
            self._history = None
        # mounts were private to the hosts' namespaces and ended with them; a busy file system still
        # needs a moment
        wait_until(f"{self.dir} to be removed", self._remove_dir, 10, 0.1)

    def _remove_dir(self) -> bool:
        shutil.rmtree(self.dir, ignore_errors=True)
        return not self.dir.exists()

    def _write_owner(self, keep: bool) -> None:
        owner = {
            "pid": os.getpid(),
            "start": procs.start_ticks(os.getpid()),
            "keep": keep,
            "machine_boot_id": pathlib.Path(MACHINE_BOOT_ID).read_text().strip(),
        }
        (self.dir / "owner.json").write_text(json.dumps(owner))

    def _is_stale(self) -> bool:
        try:
            owner = json.loads((self.dir / "owner.json").read_text())
        except (OSError, ValueError):
            return True
        if owner["machine_boot_id"] != pathlib.Path(MACHINE_BOOT_ID).read_text().strip():
            return True
        return not owner["keep"] and not procs.alive(owner["pid"], owner["start"])

    @staticmethod
    def all_labs() -> list["Lab"]:
        return [
            Lab(path.name.removeprefix(PREFIX))
            for path in sorted(labs_dir().glob(f"{PREFIX}*"))
            if path.is_dir()
        ]

    @staticmethod
    def cleanup_stale() -> list[str]:
        """Removes the labs whose owner is gone; returns their names."""
        stale = [lab for lab in Lab.all_labs() if lab._is_stale()]
        for lab in stale:
            lab.down()
        return [lab.name for lab in stale]

    # --- power and wires --------------------------------------------------------------------------

    def boot(self, host: Host) -> None:
        self.network.set_host(host.name, True)
        host.boot()
        self.mark("boot", host=host.name)

    def power_cut(self, host: Host) -> int:
        """Links down first (a dying host says no goodbye), then SIGKILL of everything on it, its
        disk's volatile cache included. Returns the cut's BOOTTIME ns.

        In the moment between the two an honest host acknowledges nothing that its partner lacks;
        what a dishonest one acknowledges then is lost, and counted."""
        self.network.set_host(host.name, False)
        cut_ns = self.mark("cut", host=host.name)
        time.sleep(CABLES_BEFORE_POWER_S)
        host.kill_all()
        self.mark("dead", host=host.name)
        return cut_ns

    def cut_link(self, link: str) -> int:
        self.network.set_link(link, False)
        return self.mark("cut", link=link)

    def cut_between_hosts(self, keep_witness_for: set[str]) -> int:
        """Both links between A and B are cut; the witness stays reachable from the hosts named,
        silently lost for the others."""
        self.network.set_link("repl", False)
        self.network.set_path("lan", "a", "b", False)
        for host in self.hosts.keys() - keep_witness_for:
            self.network.set_port("lan", host, False)
        return self.mark("cut", between_hosts=True, witness_for=sorted(keep_witness_for))

    def restore_between_hosts(self) -> None:
        self.network.set_link("repl", True)
        self.network.set_path("lan", "a", "b", True)
        self.network.set_link("lan", True)
        self.mark("restored")

    def cut_witness(self, host: str) -> int:
        """Only the packets between this host and the witness are lost."""
        self.network.set_path("lan", host, "w", False)
        return self.mark("cut", witness_from=host)

    def restore_witness(self, host: str) -> None:
        self.network.set_path("lan", host, "w", True)
        self.mark("restored")

    # --- the witness's machine --------------------------------------------------------------------

    def spawn_on_witness(self, argv: list[str], record: str) -> None:
        """A long-lived program in the witness's network namespace, remembered by name."""
        with open(self.dir / "log" / f"{record}.log", "ab") as log:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.network.namespaces["w"], *map(str, argv)],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._record(f"{record}.json", process.pid)

    def kill_on_witness(self, record: str) -> None:
        """SIGKILL: the witness's machine is gone, its disk stays."""
        known = json.loads((self.dir / f"{record}.json").read_text())
        if procs.alive(known["pid"], known["start"]):
            os.kill(known["pid"], 9)
        wait_until(
            f"{record} to be gone", lambda: not procs.alive(known["pid"], known["start"]), 10
        )

    def _record(self, name: str, pid: int) -> None:
        (self.dir / name).write_text(json.dumps({"pid": pid, "start": procs.start_ticks(pid)}))

    def _end_recorded(self, name: str) -> None:
        try:
            known = json.loads((self.dir / name).read_text())
        except (OSError, ValueError):
            return
        procs.end(known["pid"], known["start"])

    # --- the observer -----------------------------------------------------------------------------

    def _start_observer(self) -> None:
        (self.dir / "hosts.json").write_text(
            json.dumps({name: self.network.inode(name) for name in self.hosts})
        )
        self.history_path.touch()
        package_root = pathlib.Path(__file__).resolve().parents[1]
        with open(self.dir / "log" / "observer.log", "ab") as log:
            process = subprocess.Popen(
                ["/usr/bin/python3", "-m", "lab.observer", str(self.dir), str(self.history_path)],
                cwd=package_root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._record("observer.json", process.pid)
        wait_until(
            f"the observer to sample (see {self.dir}/log/observer.log)",
            self.history_path.read_bytes,
            20,
        )

    def observe(self, vm: str) -> None:
        """From now on the observer listens to this VM on both hosts."""
        (self.dir / "vms" / vm).touch()
        sockets = [host.dir / "observer" / f"{vm}.sock" for host in self.hosts.values()]
        wait_until(
            f"the observer to listen for {vm}", lambda: all(path.exists() for path in sockets), 20
        )

    def mark(self, name: str, **fields) -> int:
        if not self._history:
            self._history = HistoryWriter(self.history_path)
        return self._history.write("mark", name=name, **fields)

    def history(self) -> list[dict]:
        return read_history(self.history_path)

    def save_evidence(self, target: pathlib.Path) -> None:
        """Copies the history and every log to a directory that outlives the lab."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        sources = {
            "history.jsonl": self.history_path,
            "log": self.dir / "log",
            "hosts.json": self.dir / "hosts.json",
        }
        for host in self.hosts.values():
            sources[f"{host.name}-log"] = host.dir / "log"
            sources[f"{host.name}-libvirt"] = host.dir / "log-libvirt"
            sources[f"{host.name}-havm"] = host.path("/var/lib/havm")
            sources[f"{host.name}-disk.json"] = host.disk.settings_file
        for name, source in sources.items():
            if source.is_dir():
                shutil.copytree(
                    source,
                    target / name,
                    ignore_dangling_symlinks=True,
                    copy_function=_copy_if_small,
                )
            elif source.exists():
                shutil.copy(source, target / name)

    def tail(self) -> HistoryTail:
        return HistoryTail(self.history_path)


def _copy_if_small(source: str, target: str) -> None:
    if os.path.isfile(source) and os.stat(source).st_size <= MAX_EVIDENCE_BYTES:
        shutil.copy(source, target)
