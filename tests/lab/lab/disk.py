"""The job of HostDisk is: what a lab host keeps its VMs' images and havm's state on. As a real disk
with a volatile cache, it loses at a power cut what was not flushed, but for a random part.

Everything on it goes through lossyfs (tests/lab/lossyfs), a program inside the host's own
namespaces, which dies with the host at the same instant. The directory behind it is the medium. An
honest disk is that directory itself and loses nothing: for measurements, and to see the difference.
The choice is made when the host is installed, and stays in LAB/<host>/disk.json.
"""

import json
import os
import pathlib
import random

from .procs import LabError
from .programs import bin_dir, need

# What is on the disk: directory of the medium → where it appears in the host
ON_DISK = {"images": "/var/lib/libvirt/images", "havm": "/var/lib/havm"}
MOUNT_POINT = "/run/havm-lab-disk"
PROGRAM = "lossyfs"
# How many of the unflushed writes survive a power cut, wholly or torn: most are lost, so that a
# missing flush is seen, and some are not, so that half a story is met too
KEEP_CHANCE = 0.25
COMPARE_BYTES = 4 << 20


def need_fuse() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        raise LabError(
            f"the lab's disks need /dev/fuse ({error.strerror}): load the kernel module 'fuse'; "
            f"only honest disks (--honest-disk), which lose nothing at a power cut, do without"
        ) from error


class HostDisk:
    def __init__(self, host_dir: pathlib.Path):
        self.medium = host_dir / "disk"
        self.settings_file = host_dir / "disk.json"

    def install(self, *, honest: bool) -> None:
        if not honest:
            need_fuse()
        for folder in ON_DISK:
            (self.medium / folder).mkdir(parents=True)
        seed = random.SystemRandom().randrange(1 << 32)
        settings = {"honest": honest, "keep_chance": KEEP_CHANCE, "seed": seed, "boots": 0}
        self.settings_file.write_text(json.dumps(settings))

    def settings(self) -> dict:
        return json.loads(self.settings_file.read_text())

    def for_next_boot(self) -> dict:
        """What process 1 of the host needs to know of its disk."""
        settings = self.settings()
        if settings["honest"]:
            return {"source": str(self.medium), "program": None, "binds": ON_DISK}
        need(bin_dir(), [PROGRAM])
        settings["boots"] += 1
        self.settings_file.write_text(json.dumps(settings))
        return {
            "source": MOUNT_POINT,
            "program": [
                str(bin_dir() / PROGRAM),
                str(self.medium),
                MOUNT_POINT,
                "--keep-chance",
                str(settings["keep_chance"]),
                "--seed",
                str(settings["seed"] + settings["boots"]),
            ],
            "binds": ON_DISK,
        }

    def on_medium(self, inside: str) -> pathlib.Path | None:
        """Where a file of the host is on the medium; None when it is not on this disk."""
        for folder, target in ON_DISK.items():
            if inside == target or inside.startswith(target + "/"):
                return self.medium / folder / inside[len(target) + 1 :]
        return None


def same_content(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Byte for byte, in pieces large enough for a file system in user space."""
    with open(one, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        if os.fstat(left.fileno()).st_size != os.fstat(right.fileno()).st_size:
            return False
        while True:
            mine, theirs = _piece(left), _piece(right)
            if mine != theirs:
                return False
            if not mine:
                return True


def _piece(file) -> bytes:
    """COMPARE_BYTES, less only at the end of the file."""
    parts, left = [], COMPARE_BYTES
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
