#!/usr/bin/python3
"""The job of this script is: to make the lab's guest (kernel + initramfs) once, and to know how it
can run here.

The kernel is Debian's cloud kernel, downloaded and unpacked but never installed; the initramfs is
busybox, the few modules a virtio disk and a power button need, and the stamper. Everything is
cached under build/lab/guest, keyed by the sources. Whether KVM can really run it is found by
booting it (see `accelerator`), never by looking at /dev/kvm.
"""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MODULES = [
    "virtio_ring",
    "virtio",
    "virtio_blk",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "evdev",
    "button",
]
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
PROBE_BOOT_S = 10


class GuestError(RuntimeError):
    """The guest cannot be made here; the text says what is missing."""


def cache_dir() -> pathlib.Path:
    return pathlib.Path(os.environ.get("HAVM_LAB_CACHE", ROOT / "build" / "lab" / "guest"))


def run(argv, **options) -> str:
    done = subprocess.run(
        argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )
    if done.returncode != 0:
        raise GuestError(
            f"{' '.join(map(str, argv))} failed: {done.stderr.strip() or done.stdout.strip()}"
        )
    return done.stdout


def kernel_package() -> str:
    """The package with the kernel in it: what the meta package depends on."""
    text = run(["apt-cache", "depends", KERNEL_META_PACKAGE])
    found = re.search(r"Depends: (linux-image-\S+-cloud-amd64)$", text, re.MULTILINE)
    if not found:
        raise GuestError(
            f"apt knows no {KERNEL_META_PACKAGE}; run ./dev deps (it refreshes the package lists)"
        )
    return found.group(1)


def unpack_kernel(target: pathlib.Path) -> None:
    """Leaves vmlinuz and *.ko of the cloud kernel in `target`."""
    with tempfile.TemporaryDirectory(prefix="havm-kernel-", dir=target.parent) as work:
        package = kernel_package()
        run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package], cwd=work)
        (archive,) = pathlib.Path(work).glob("*.deb")
        unpacked = pathlib.Path(work) / "x"
        run(["dpkg-deb", "-x", archive, unpacked])
        fresh = pathlib.Path(work) / "kernel"
        fresh.mkdir()
        (kernel,) = (unpacked / "boot").glob("vmlinuz-*")
        shutil.copy(kernel, fresh / "vmlinuz")
        for module in MODULES:
            (path,) = unpacked.rglob(f"{module}.ko")
            shutil.copy(path, fresh / path.name)
        (fresh / "package").write_text(package + "\n")
        fresh.rename(target)


def cpio_of(tree: pathlib.Path) -> bytes:
    names = "\n".join(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
    done = subprocess.run(
        ["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"],
        input=names.encode(),
        cwd=tree,
        check=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout


def make_initramfs(kernel: pathlib.Path, target: pathlib.Path) -> None:
    busybox = shutil.which("busybox")
    if not busybox or subprocess.run(["ldd", busybox], capture_output=True).returncode == 0:
        raise GuestError("busybox is missing or not static; install busybox-static (./dev deps)")
    with tempfile.TemporaryDirectory(prefix="havm-initramfs-") as work:
        tree = pathlib.Path(work)
        for folder in ("bin", "dev", "proc", "modules"):
            (tree / folder).mkdir()
        shutil.copy(busybox, tree / "bin" / "busybox")
        run(
            [
                "gcc",
                "-std=gnu11",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-static",
                "-o",
                tree / "bin" / "stamper",
                HERE / "stamper.c",
            ]
        )
        for module in MODULES:
            shutil.copy(kernel / f"{module}.ko", tree / "modules")
        shutil.copy(HERE / "init", tree / "init")
        (tree / "init").chmod(0o755)
        target.write_bytes(gzip.compress(cpio_of(tree), 6, mtime=0))


@contextlib.contextmanager
def locked(folder: pathlib.Path):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build() -> dict:
    """{"kernel": path, "initramfs": path}; made when missing or older than its sources."""
    folder = cache_dir()
    digest = hashlib.sha256()
    for name in ("stamper.c", "init", "build.py"):
        digest.update((HERE / name).read_bytes())
    key = digest.hexdigest()[:16]
    with locked(folder):
        kernel = folder / "kernel"
        if not kernel.exists():
            unpack_kernel(kernel)
        initramfs = folder / f"initramfs-{key}.gz"
        if not initramfs.exists():
            partial = folder / "initramfs.partial"
            make_initramfs(kernel, partial)
            for old in folder.glob("initramfs-*.gz"):
                old.unlink()
            partial.rename(initramfs)
    return {"kernel": str(kernel / "vmlinuz"), "initramfs": str(initramfs)}


def command_line(vm: str, pace_ms: int) -> str:
    # tsc and clock checks cost a second under emulation and tell the guest nothing
    return (
        f"console=ttyS0 quiet loglevel=3 panic=1 tsc=reliable no_timer_check "
        f"rcupdate.rcu_expedited=1 mitigations=off "
        f"nowatchdog nosoftlockup rcupdate.rcu_cpu_stall_suppress=1 "
        f"stamp_vm={vm} stamp_pace_ms={pace_ms}"
    )


def boots(accel: str, guest: dict) -> bool:
    """Really boots the guest with this accelerator, until it reports its first stamp."""
    with tempfile.TemporaryDirectory(prefix="havm-probe-") as work:
        disk = pathlib.Path(work) / "disk"
        with open(disk, "wb") as file:
            file.truncate(4 << 20)
        argv = [
            "qemu-system-x86_64",
            "-accel",
            accel,
            "-m",
            "128",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-kernel",
            guest["kernel"],
            "-initrd",
            guest["initramfs"],
            "-append",
            command_line("probe", 25),
            "-drive",
            f"file={disk},format=raw,if=virtio,cache=none",
            "-serial",
            f"file:{work}/serial",
            "-no-reboot",
        ]
        qemu = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + PROBE_BOOT_S
            while time.monotonic() < deadline and qemu.poll() is None:
                serial = pathlib.Path(work) / "serial"
                if serial.exists() and b"STAMP boot=" in serial.read_bytes():
                    return True
                time.sleep(0.1)
            return False
        finally:
            qemu.kill()
            qemu.wait()


def accelerator() -> str:
    """ "kvm" when a guest really boots with it, else "tcg". Remembered until the machine
    reboots."""
    guest = build()
    folder = cache_dir()
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with locked(folder):
        memory = folder / "accelerator.json"
        if memory.exists():
            known = json.loads(memory.read_text())
            if known["boot_id"] == boot_id:
                return known["accelerator"]
        found = "kvm" if os.access("/dev/kvm", os.W_OK) and boots("kvm", guest) else "tcg"
        memory.write_text(json.dumps({"boot_id": boot_id, "accelerator": found}))
        return found


if __name__ == "__main__":
    try:
        print(json.dumps({**build(), "accelerator": accelerator()}))
    except GuestError as error:
        sys.exit(f"error: {error}")
