"""The job of Host is: one lab host, a machine as far as libvirt and havm can tell.

It has its own network, mount, UTS and pid namespaces, its own boot_id at each boot, a fresh /run,
and private /etc/libvirt, /var/lib/libvirt, /var/log/libvirt, /var/cache/libvirt and /etc/havm that
survive a power cut as they are. Images and /var/lib/havm are on a disk that loses what was not
flushed (disk.py). All state is in the lab directory, so that a second process can attach to a host
that another one booted.
"""

import json
import os
import pathlib
import shutil
import subprocess
import uuid

from . import procs
from .disk import HostDisk
from .procs import LabError, wait_until

HERE = pathlib.Path(__file__).resolve().parent
HOOK = HERE.parents[2] / "conf" / "hooks" / "qemu"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
READY_S = 60
# What the host keeps over a power cut, flushed or not: directory in the lab's folder → where it
# appears
KEPT = {
    "etc-libvirt": "/etc/libvirt",
    "lib-libvirt": "/var/lib/libvirt",
    "log-libvirt": "/var/log/libvirt",
    "cache-libvirt": "/var/cache/libvirt",
    "etc-havm": "/etc/havm",
    "observer": "/run/havm-observer",
}
LIBVIRTD_CONF = """listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_level = 3
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""
QEMU_CONF = """user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
"""


class Host:
    def __init__(self, name: str, lab_dir: pathlib.Path, namespace: str):
        self.name = name
        self.dir = lab_dir / name
        self.namespace = namespace
        self.disk = HostDisk(self.dir)
        self._report = self.dir / "init.json"

    # --- what is there ----------------------------------------------------------------------------

    def init_pid(self) -> int:
        """Process 1 of the host, seen from outside; LabError when the host is off."""
        try:
            known = json.loads(self._report.read_text())
        except OSError:
            known = None
        if not known or not procs.alive(known["pid"], known["start"]):
            raise LabError(f"host {self.name} is off")
        return known["pid"]

    def is_on(self) -> bool:
        try:
            return bool(self.init_pid())
        except LabError:
            return False

    def boot_id(self) -> str:
        return (self.dir / "boot_id").read_text().strip()

    def pids_of(self, program: str, *words: str) -> list[int]:
        """Outer pids of this host's processes whose program has this name and whose arguments
        contain all `words`."""
        inode = procs.namespace_id(self.init_pid(), "pid")
        return [
            pid
            for pid in procs.in_namespace("pid", inode)
            if procs.executable_name(pid) == program and set(words) <= set(procs.command_line(pid))
        ]

    def qemu_pids(self, vm: str) -> list[int]:
        inode = procs.namespace_id(self.init_pid(), "pid")
        found = []
        for pid in procs.in_namespace("pid", inode):
            words = procs.command_line(pid)
            if (
                words
                and os.path.basename(words[0]).startswith("qemu-system-")
                and any(word.split(",")[0] == f"guest={vm}" for word in words)
            ):
                found.append(pid)
        return found

    # --- power ------------------------------------------------------------------------------------

    def install(self, *, honest_disk: bool = False) -> None:
        """The disks of a host that was never booted."""
        for folder in [*KEPT, "log"]:
            (self.dir / folder).mkdir(parents=True, exist_ok=True)
        etc = self.dir / "etc-libvirt"
        host_uuid = uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.namespace}.havm-lab")
        (etc / "libvirtd.conf").write_text(LIBVIRTD_CONF.format(uuid=host_uuid))
        (etc / "qemu.conf").write_text(QEMU_CONF)
        (etc / "virtlogd.conf").write_text("")
        self.disk.install(honest=honest_disk)
        if HOOK.exists():
            target = etc / "hooks" / "qemu.d" / "50-havm"
            target.parent.mkdir(parents=True)
            shutil.copy(HOOK, target)
            target.chmod(0o755)

    def boot(self) -> None:
        if self.is_on():
            raise LabError(f"host {self.name} is on already")
        self._report.unlink(missing_ok=True)
        (self.dir / "boot_id").write_text(f"{uuid.uuid4()}\n")
        config = {
            "hostname": self.name,
            "boot_id_file": str(self.dir / "boot_id"),
            "report": str(self._report),
            "tmpfs": ["/run"],
            "binds": {target: str(self.dir / folder) for folder, target in KEPT.items()},
            "disk": self.disk.for_next_boot(),
        }
        (self.dir / "init-config.json").write_text(json.dumps(config))
        argv = [
            "nsenter",
            f"--net=/run/netns/{self.namespace}",
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "/usr/bin/python3",
            str(HERE / "host_init.py"),
            str(self.dir / "init-config.json"),
        ]
        with open(self.dir / "log" / "init.log", "ab") as log:
            init = subprocess.Popen(
                argv,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            f"host {self.name} to be up (see {self.dir}/log/init.log)",
            lambda: self.is_on() or init.poll() is not None,
            READY_S,
            0.02,
        )
        if not self.is_on():
            said = (self.dir / "log" / "init.log").read_text(errors="replace").splitlines()
            raise LabError(f"host {self.name} did not come up: {' / '.join(said[-3:])}")
        self._start_libvirt()

    def _start_libvirt(self) -> None:
        self.exec(["/usr/sbin/virtlogd", "-d"])
        self.exec(["/usr/sbin/libvirtd", "-d", "--listen"])
        wait_until(
            f"libvirtd of host {self.name} to answer (see {self.dir}/log-libvirt/libvirtd.log)",
            lambda: self.exec(["virsh", "-q", "list"], check=False).returncode == 0,
            READY_S,
            0.2,
        )

    def kill_all(self) -> None:
        """The power cut without its network part (Lab.power_cut has that): every process of the
        host, at once."""
        inode = os.stat(f"/run/netns/{self.namespace}").st_ino
        namespaces = {"net": inode}
        if self.is_on():
            pid = self.init_pid()
            namespaces |= {kind: procs.namespace_id(pid, kind) for kind in ("mnt", "pid")}
            if namespaces["mnt"] == procs.namespace_id(os.getpid(), "mnt"):
                raise LabError(f"host {self.name} is not in a namespace of its own")
            os.kill(pid, 9)  # takes its whole pid namespace with it
        procs.kill_namespace(namespaces)
        self._report.unlink(missing_ok=True)

    # --- programs ---------------------------------------------------------------------------------

    def _enter(self, argv: list[str]) -> list[str]:
        return ["nsenter", "-t", str(self.init_pid()), "-m", "-n", "-u", "-p", *map(str, argv)]

    @staticmethod
    def _environment(extra: dict | None = None) -> dict:
        return {
            "PATH": PATH,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "LIBVIRT_DEFAULT_URI": "qemu:///system",
            **{key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")},
            **(extra or {}),
        }

    def exec(
        self,
        argv: list[str],
        *,
        check: bool = True,
        timeout_s: float = 60,
        env: dict | None = None,
        input_text: str | None = None,
    ) -> subprocess.CompletedProcess:
        """Runs a program in the host to its end, output captured as text. Working directory is
        /."""
        try:
            done = subprocess.run(
                self._enter(argv),
                cwd="/",
                text=True,
                capture_output=True,
                timeout=timeout_s,
                env=self._environment(env),
                input=input_text if input_text is not None else "",
            )
        except subprocess.TimeoutExpired as late:
            raise LabError(
                f"on host {self.name}, not finished within {timeout_s:g} s: "
                f"{' '.join(map(str, argv))}"
            ) from late
        if check and done.returncode != 0:
            raise LabError(
                f"on host {self.name}, {' '.join(map(str, argv))} exited {done.returncode}: "
                f"{done.stderr.strip() or done.stdout.strip()}"
            )
        return done

    def exec_here(self, argv: list[str]) -> int:
        """Runs a program in the host with this terminal as its own."""
        return subprocess.run(
            self._enter(argv), env=self._environment({"TERM": os.environ.get("TERM", "dumb")})
        ).returncode

    def spawn(self, argv: list[str], log_name: str, env: dict | None = None) -> subprocess.Popen:
        """Starts a long-lived program, detached; its output goes to
        LAB/<host>/log/<log_name>.log."""
        with open(self.dir / "log" / f"{log_name}.log", "ab") as log:
            return subprocess.Popen(
                self._enter(argv),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(env),
                start_new_session=True,
            )

    def virsh(
        self, *argv: str, check: bool = True, timeout_s: float = 60
    ) -> subprocess.CompletedProcess:
        return self.exec(["virsh", "-q", *argv], check=check, timeout_s=timeout_s)

    def path(self, inside: str) -> pathlib.Path:
        """Where a kept file of the host is, seen from outside. On a host that is on, a file of its
        disk is as the host sees it, what was not flushed included; on one that is off, it is what
        survived. Good until the power changes."""
        on_medium = self.disk.on_medium(inside)
        if on_medium and self.is_on():
            return pathlib.Path(f"/proc/{self.init_pid()}/root{inside}")
        if on_medium:
            return on_medium
        for folder, target in KEPT.items():
            if inside == target or inside.startswith(target + "/"):
                return self.dir / folder / inside[len(target) + 1 :]
        raise LabError(f"{inside} is not kept by host {self.name}")
