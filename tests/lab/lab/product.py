"""The job of Product is: havm's programs in a lab, started as a service manager would start them,
and its CLI as a person types it.

Programs come from one directory of a build; some can be replaced by deliberately broken builds.
Nothing of the checkout is assumed inside the hosts but that directory's absolute path.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess

from . import procs
from .host import Host
from .lab import Lab
from .network import ADDRESSES
from .procs import LabError, wait_until
from .programs import bin_dir, need

CLUSTER_FILE = "/etc/havm/cluster.json"
PROGRAMS = ["havm", "havmd", "havm-repl", "havm-guard", "havm-witness"]
WITNESS_PORT = 7600
READY_S = 30
SYNC_S = 180


class Product:
    def __init__(
        self,
        lab: Lab,
        *,
        timing: str = "default",
        transport: str = "tls",
        replaced: dict[str, str] | None = None,
        binaries: pathlib.Path | None = None,
    ):
        """`replaced` maps a program to the file in the bin directory that stands in for it."""
        self.lab = lab
        self.timing = timing
        self.transport = transport
        self.bin = binaries or bin_dir()
        need(self.bin, [*PROGRAMS, *(replaced or {}).values()])
        if replaced:
            self.bin = self._copy_with(replaced)
        self._write_configuration()

    def _copy_with(self, replaced: dict[str, str]) -> pathlib.Path:
        # real copies: a program that looks beside itself for its fellows must find these
        target = self.lab.dir / "bin"
        target.mkdir()
        for name in PROGRAMS:
            shutil.copy(self.bin / replaced.get(name, name), target / name)
        return target

    def configuration(self) -> dict:
        links = {name: [ADDRESSES["repl"][name], ADDRESSES["lan"][name]] for name in self.lab.hosts}
        return {
            "version": 1,
            "cluster": "lab",
            "nodes": {name: {"links": addresses} for name, addresses in links.items()},
            "witness": {"address": ADDRESSES["lan"]["w"], "port": WITNESS_PORT},
            "timing": {"profile": self.timing},
            "security": {"transport": self.transport},
            "ports": {
                "heartbeat": 7601,
                "peer": 7602,
                "replication": {"first": 7700, "last": 7899},
            },
        }

    def _write_configuration(self) -> None:
        for host in self.lab.hosts.values():
            host.path(CLUSTER_FILE).write_text(json.dumps(self.configuration(), indent=2) + "\n")

    def join_nodes(self) -> None:
        """Certificates for both hosts, as the README tells a person to make them; once in the life
        of a lab. Both hosts must be on."""
        a, b = self.lab.a, self.lab.b
        if b.path("/etc/havm/tls/node.pem").exists():
            return
        self.havm(a, "cluster-init")
        self.havm(a, "node-join", b.name, "--out", "/etc/havm/b.pem")
        carried = a.path("/etc/havm/b.pem")
        shutil.move(carried, b.path("/etc/havm/b.pem"))
        self.havm(b, "node-join", "--from", "/etc/havm/b.pem")
        b.path("/etc/havm/b.pem").unlink()

    # --- programs ---------------------------------------------------------------------------------

    def start_witness(self) -> None:
        self.lab.spawn_on_witness(
            [
                self.bin / "havm-witness",
                "--listen",
                f"{ADDRESSES['lan']['w']}:{WITNESS_PORT}",
                "--db",
                self.lab.dir / "witness.db",
            ],
            "havm-witness",
        )
        wait_until(
            f"havm-witness to answer (see {self.lab.dir}/log/havm-witness.log)",
            self._witness_answers,
            READY_S,
        )

    def _witness_answers(self) -> bool:
        probe = f"exec 3<>/dev/tcp/{ADDRESSES['lan']['w']}/{WITNESS_PORT}"
        argv = ["ip", "netns", "exec", self.lab.network.namespaces["w"], "bash", "-c", probe]
        return subprocess.run(argv, capture_output=True).returncode == 0

    def kill_witness(self) -> None:
        self.lab.kill_on_witness("havm-witness")
        self.lab.mark("witness-killed")

    def start_havmd(self, host: Host) -> None:
        host.spawn([str(self.bin / "havmd"), "--config", CLUSTER_FILE], "havmd")
        wait_until(
            f"havmd of host {host.name} to answer (see {host.dir}/log/havmd.log)",
            lambda: self.havm(host, "version", check=False).returncode == 0,
            READY_S,
            0.1,
        )

    def start(self) -> None:
        """Witness and both agents, on hosts that are on."""
        self.join_nodes()
        self.start_witness()
        for host in self.lab.hosts.values():
            self.start_havmd(host)

    def boot(self, host: Host) -> None:
        """As a machine whose services are enabled: libvirtd, then havmd."""
        self.lab.boot(host)
        self.start_havmd(host)

    def kill(self, host: Host, program: str, *words: str) -> None:
        """kill -9 of every process of this program on the host."""
        pids = host.pids_of(program, *words)
        if not pids:
            raise LabError(f"no {program} runs on host {host.name}")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(
            f"{program} to be gone", lambda: not any(procs.alive(pid) for pid in pids), 10, 0.01
        )
        self.lab.mark("killed", host=host.name, program=program)

    # --- the CLI ----------------------------------------------------------------------------------

    def havm(
        self, host: Host, *argv: str, check: bool = True, timeout_s: float = SYNC_S
    ) -> subprocess.CompletedProcess:
        return host.exec([str(self.bin / "havm"), *argv], check=check, timeout_s=timeout_s)

    def json(self, host: Host, *argv: str) -> dict:
        return json.loads(self.havm(host, *argv, "--json").stdout)

    def dominfo(self, host: Host, vm: str) -> dict:
        return self.json(host, "dominfo", vm)

    def events(self, host: Host, vm: str) -> list[dict]:
        return self.json(host, "explain", vm)["events"]

    def wait_event(
        self, host: Host, vm: str, kind: str, since_ns: int, deadline_s: float = SYNC_S
    ) -> dict:
        """The first event of this kind after a time, on this boot of the host."""

        def found() -> dict | None:
            return next(
                (
                    each
                    for each in self.events(host, vm)
                    if each["kind"] == kind and each["time_ns"] > since_ns
                ),
                None,
            )

        return wait_until(f"host {host.name} to tell '{kind}' of {vm}", found, deadline_s, 0.2)

    def wait_in_sync(self, host: Host, vm: str, deadline_s: float = SYNC_S) -> None:
        self.havm(
            host, "wait", vm, "in-sync", "--timeout", f"{deadline_s:g}", timeout_s=deadline_s + 10
        )

    def wait_running(self, host: Host, vm: str, deadline_s: float = SYNC_S) -> None:
        self.havm(
            host, "wait", vm, "running", "--timeout", f"{deadline_s:g}", timeout_s=deadline_s + 10
        )
