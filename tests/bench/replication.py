#!/usr/bin/python3
"""The job of this benchmark is: the price of replication on the write path, side by side, in pairs.

fio's nbd engine drives two subjects in turn, round after round, on this machine:
  local   qemu-storage-daemon, one file, O_DIRECT, not replicated
  havm    havm-repl with a partner engine over loopback TCP, both replicas in sync, O_DIRECT on both
Each round gives a ratio havm/local; the median ratio is the result, with its spread. Both replicas
share this machine's processors and disk, so absolute numbers mean little. Reads and writes never
leave this machine. At the end both replicas must be equal.

The engines talk plain TCP, so that the price of replication is not mixed with that of encryption;
--tls measures them as they are installed, with mutual TLS 1.3. The result names which it was.

  --rounds N     rounds (default 5)      --seconds S   of each measurement (default 5)
  --dir PATH     where the images are made (default: /var/tmp)
  --tls          with TLS             --json         one object at the end
"""

import argparse
import contextlib
import filecmp
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
DISK_BYTES = 1 << 30
READY_S = 30
SYNC_S = 120
WORKLOADS = {
    "4k write QD1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4k write QD16": ["--rw=randwrite", "--bs=4k", "--iodepth=16"],
    "4k write+fsync QD1": ["--rw=randwrite", "--bs=4k", "--iodepth=1", "--fsync=1"],
    "1M write QD4": ["--rw=write", "--bs=1M", "--iodepth=4"],
    "4k read QD16": ["--rw=randread", "--bs=4k", "--iodepth=16"],
}


class BenchError(RuntimeError):
    """A subject could not be measured."""


def wait_until(what: str, condition, deadline_s: float):
    deadline = time.monotonic() + deadline_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise BenchError(f"not within {deadline_s} s: {what}")
        time.sleep(0.05)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_image(path: pathlib.Path) -> None:
    """Allocated and written, so that no subject pays for the file system's first touch."""
    chunk = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(DISK_BYTES >> 20):
            file.write(chunk)
        os.fsync(file.fileno())


class Control:
    """One connection to an engine's control socket."""

    def __init__(self, path: pathlib.Path):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r")

    def call(self, command: str, **arguments) -> dict:
        request = {"id": 1, "cmd": command, **arguments}
        self._socket.sendall((json.dumps(request) + "\n").encode())
        while True:
            reply = json.loads(self._lines.readline())
            if "ok" not in reply:
                continue
            if not reply["ok"]:
                raise BenchError(f"engine: {command}: {reply['error']}")
            return reply["result"]


class Subjects:
    """Both subjects, up at the same time and idle unless measured."""

    def __init__(
        self, work: pathlib.Path, binaries: pathlib.Path, tls: bool, stack: contextlib.ExitStack
    ):
        self._work = work
        self._binaries = binaries
        self._engine = binaries / "havm-repl"
        self._tls = tls
        self._stack = stack
        self.sockets: dict[str, tuple[pathlib.Path, str]] = {}

    def _spawn(self, argv: list, log: str) -> subprocess.Popen:
        with open(self._work / log, "ab") as out:
            process = subprocess.Popen(
                [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

        def end() -> None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._stack.callback(end)
        return process

    def start_local(self) -> None:
        image, path = self._work / "local.img", self._work / "local.sock"
        make_image(image)
        blockdev = f"driver=file,node-name=vda,filename={image},cache.direct=on,aio=io_uring"
        self._spawn(
            [
                "qemu-storage-daemon",
                "--blockdev",
                blockdev,
                "--nbd-server",
                f"addr.type=unix,addr.path={path}",
                "--export",
                "type=nbd,id=e,node-name=vda,name=vda,writable=on",
            ],
            "local.log",
        )
        wait_until("qemu-storage-daemon", path.exists, READY_S)
        self.sockets["local"] = (path, "vda")

    def _make_certificates(self) -> None:
        """As an administrator of two hosts does; both are this machine."""
        cluster = self._work / "cluster.json"
        links = {"a": {"links": ["192.0.2.1"]}, "b": {"links": ["192.0.2.2"]}}
        cluster.write_text(json.dumps({"version": 1, "cluster": "bench", "nodes": links}))
        bundle = self._work / "b.pem"
        for node, words in (
            ("a", ["cluster-init"]),
            ("a", ["node-join", "b", "--out", bundle]),
            ("b", ["node-join", "--from", bundle]),
        ):
            place = ["--config", cluster, "--node", node, "--dir", self._work / f"{node}-tls"]
            subprocess.run(
                [self._binaries / "havm", *words, *place], check=True, capture_output=True
            )

    def _tls_files(self, node: str) -> dict | None:
        if not self._tls:
            return None
        files = {"ca": "ca.pem", "certificate": "node.pem", "key": "node.key"}
        return {key: str(self._work / f"{node}-tls" / name) for key, name in files.items()}

    def _configure(self, node: str, ports: dict[str, int]) -> pathlib.Path:
        partner = "b" if node == "a" else "a"
        config = {
            "version": 1,
            "vm": "bench",
            "vm_id": "6f2a0d3c-7e1b-4f7e-9d54-0a52d4b2c001",
            "node": node,
            "partner": partner,
            "disks": [
                {
                    "name": "vda",
                    "path": str(self._work / f"{node}.img"),
                    "size": DISK_BYTES,
                    "nbd_socket": str(self._work / f"{node}.nbd"),
                }
            ],
            "record": str(self._work / f"{node}.record"),
            "control_socket": str(self._work / f"{node}.control"),
            "guard_socket": "",
            "listen": [{"address": "127.0.0.1", "port": ports[node]}],
            "partner_addresses": [{"address": "127.0.0.1", "port": ports[partner]}],
            "timing": {"keepalive_ms": 250, "session_timeout_ms": 8000, "lease_ms": 24000},
            "nbd_socket_mode": "0600",
            "tls": self._tls_files(node),
        }
        path = self._work / f"{node}.json"
        path.write_text(json.dumps(config))
        return path

    def start_havm(self) -> None:
        ports = {"a": free_port(), "b": free_port()}
        if self._tls:
            self._make_certificates()
        for node, state in (("a", "uptodate"), ("b", "inconsistent")):
            make_image(self._work / f"{node}.img")
            config = self._configure(node, ports)
            subprocess.run(
                [self._engine, "--config", config, "--create", state],
                check=True,
                capture_output=True,
            )
            self._spawn([self._engine, "--config", config], f"{node}.log")
            wait_until(f"engine {node}", (self._work / f"{node}.control").exists, READY_S)
        owner = Control(self._work / "a.control")
        owner.call("serve", epoch=1)
        owner.call("connect")
        self._wait_session(owner, "synced")
        owner.call("grow-prepare", epoch=1)
        owner.call("grow-commit", epoch=2)
        self._wait_session(owner, "live")
        self.owner = owner
        self.sockets["havm"] = (self._work / "a.nbd", "vda")

    @staticmethod
    def _wait_session(owner: Control, state: str) -> None:
        wait_until(
            f"the session to be {state}",
            lambda: owner.call("status")["session"]["state"] == state,
            SYNC_S,
        )

    def still_replicating(self) -> None:
        """A replica that fell out on the way would make havm look fast."""
        status = self.owner.call("status")
        if status["session"]["state"] != "live" or status["record"]["in_sync"] != "both":
            raise BenchError(f"the replicas fell out of sync while measured: {status}")


def measure(where: tuple[pathlib.Path, str], options: list[str], seconds: int) -> dict:
    path, export = where
    argv = [
        "fio",
        "--name=bench",
        "--ioengine=nbd",
        f"--uri=nbd+unix:///{export}?socket={path}",
        f"--size={DISK_BYTES}",
        "--time_based",
        f"--runtime={seconds}",
        "--ramp_time=1",
        "--randrepeat=0",
        "--output-format=json",
        *options,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise BenchError(f"fio failed: {done.stderr.strip()}")
    # fio puts notes before the object
    job = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]
    side = job["read" if "read" in options[0] else "write"]
    if job["error"] or side["iops"] <= 0:
        raise BenchError(f"fio measured nothing: error {job['error']}")
    return {"iops": side["iops"], "mb_per_s": side["bw_bytes"] / 1e6}


def run_rounds(subjects: Subjects, rounds: int, seconds: int) -> dict:
    results = {name: {"local": [], "havm": []} for name in WORKLOADS}
    for number in range(rounds):
        for name, options in WORKLOADS.items():
            # the order alternates, so that neither subject always follows the other
            order = ["local", "havm"] if number % 2 == 0 else ["havm", "local"]
            for subject in order:
                results[name][subject].append(measure(subjects.sockets[subject], options, seconds))
            subjects.still_replicating()
            print(f" round {number + 1}/{rounds}  {name}", file=sys.stderr)
    return results


def summary(results: dict) -> dict:
    table = {}
    for name, by_subject in results.items():
        pairs = zip(by_subject["havm"], by_subject["local"])
        ratios = sorted(havm["iops"] / local["iops"] for havm, local in pairs)
        table[name] = {
            subject: {
                key: round(statistics.median(each[key] for each in values), 1)
                for key in ("iops", "mb_per_s")
            }
            for subject, values in by_subject.items()
        }
        table[name]["ratio"] = round(statistics.median(ratios), 3)
        table[name]["ratio_range"] = [round(ratios[0], 3), round(ratios[-1], 3)]
    return table


def show(table: dict) -> None:
    print(f" {'workload':<20} {'local IOPS':>11} {'havm IOPS':>11} {'ratio':>7}   range of rounds")
    print("-" * 78)
    for name, row in table.items():
        low, high = row["ratio_range"]
        local, havm = row["local"]["iops"], row["havm"]["iops"]
        numbers = f"{local:>11.0f} {havm:>11.0f} {row['ratio']:>7.2f}   {low:.2f} – {high:.2f}"
        print(f" {name:<20} {numbers}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev bench replication",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--dir", default="/var/tmp")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    binaries = pathlib.Path(os.environ.get("HAVM_BIN_DIR", ROOT / "build" / "release" / "bin"))
    with tempfile.TemporaryDirectory(prefix="havm-bench-", dir=options.dir) as folder:
        work = pathlib.Path(folder)
        with contextlib.ExitStack() as stack:
            subjects = Subjects(work, binaries, options.tls, stack)
            subjects.start_local()
            subjects.start_havm()
            table = summary(run_rounds(subjects, options.rounds, options.seconds))
            subjects.owner.call("flush")
        if not filecmp.cmp(work / "a.img", work / "b.img", shallow=False):
            raise BenchError("the replicas differ after the benchmark")
    transport = "tls" if options.tls else "plain"
    if options.json:
        print(json.dumps({"transport": transport, "workloads": table}))
    else:
        print(f" between the engines: {transport}")
        show(table)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"error: {error}")
