"""The job of this program is: to be process 1 of one lab host. It mounts what is private to the
host, then reaps for ever.

Started by Host.boot() in fresh mount, UTS and pid namespaces; killing it is the power cut, for the
kernel then kills every process of its pid namespace at once. Its argument is a JSON file:
{"hostname", "boot_id_file", "report", "tmpfs": [path…], "binds": {target: source}, "disk":
{"source", "program": argv or null, "binds": {directory of the source: target}}}. The disk's program
runs in the host, so that it ends at the same instant as everything else. When all is mounted it
writes {"pid", "start"} as seen from outside to the report file.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time

DISK_READY_S = 20


def mount(*argv: str) -> None:
    subprocess.run(["mount", *argv], check=True)


def outer_identity() -> dict:
    """The pid and start time seen from outside: /proc still belongs to the outer pid namespace."""
    with open("/proc/self/stat", encoding="ascii") as file:
        text = file.read()
    return {"pid": int(text.split()[0]), "start": int(text[text.rindex(")") + 2 :].split()[19])}


def start_disk(argv: list[str], mount_point: str) -> None:
    """Returns when the disk's file system answers."""
    os.makedirs(mount_point)
    program = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    deadline = time.monotonic() + DISK_READY_S
    while not os.path.ismount(mount_point):
        if program.poll() is not None:
            sys.exit(f"the disk's program {argv[0]} ended with status {program.returncode}")
        if time.monotonic() > deadline:
            sys.exit(f"the disk's program {argv[0]} mounted nothing within {DISK_READY_S} s")
        time.sleep(0.005)


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        config = json.load(file)
    identity = outer_identity()
    socket.sethostname(config["hostname"])
    for target in config["tmpfs"]:
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", target)
    for target, source in config["binds"].items():
        os.makedirs(target, exist_ok=True)
        mount("--bind", source, target)
    mount("-t", "proc", "proc", "/proc")
    disk = config["disk"]
    if disk["program"]:
        start_disk(disk["program"], disk["source"])
    for folder, target in disk["binds"].items():
        os.makedirs(target, exist_ok=True)
        mount("--bind", os.path.join(disk["source"], folder), target)
    mount("--bind", config["boot_id_file"], "/proc/sys/kernel/random/boot_id")
    partial = config["report"] + ".partial"
    with open(partial, "w", encoding="ascii") as file:
        json.dump(identity, file)
    os.rename(partial, config["report"])
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            signal.sigwait([signal.SIGCHLD])


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    main()
