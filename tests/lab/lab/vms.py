"""The job of this module is: the lab's VMs, from an empty disk to waiting for what they say on
their serial port."""

import pathlib
import sys

from .domain import DISK_BYTES, disk_path, domain_xml
from .host import Host
from .lab import Lab
from .procs import LabError, wait_until
from .verdict import GuestStory, guest_story

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "guest"))
import build as guest_build  # noqa: E402  (a script beside this package, also run by hand)

# From start to the first stamp; a guest under emulation on a busy machine needs many times its idle
# boot time
BOOT_S = 120


def guest_description(vm: str, pace_ms: int = 25) -> dict:
    try:
        return {
            **guest_build.build(),
            "command_line": guest_build.command_line(vm, pace_ms),
            "accelerator": guest_build.accelerator(),
        }
    except guest_build.GuestError as error:
        raise LabError(f"no guest: {error}") from error


def create_disk(host: Host, vm: str, size: int = DISK_BYTES) -> pathlib.Path:
    path = host.path(disk_path(vm))
    with open(path, "xb") as file:
        file.truncate(size)
    return path


def define_vm(
    lab: Lab, host: Host, vm: str, *, disk_bytes: int = DISK_BYTES, pace_ms: int = 25, **xml_options
) -> None:
    """A VM with an empty file disk on this host, observed, not started."""
    lab.observe(vm)
    create_disk(host, vm, disk_bytes)
    define_xml(host, vm, domain_xml(vm, guest_description(vm, pace_ms), **xml_options))


def define_xml(host: Host, vm: str, xml: str) -> None:
    # by a file on a kept directory: /run and /tmp of the host and of this process are not the same
    # place
    path = host.path(f"/var/lib/libvirt/{vm}.define.xml")
    path.write_text(xml)
    host.virsh("define", f"/var/lib/libvirt/{path.name}")
    path.unlink()


def story(lab: Lab, vm: str) -> GuestStory:
    return guest_story(lab.history(), vm)


def stamps_since(lab: Lab, vm: str, t_ns: int, host: str | None = None) -> int:
    return sum(
        1 for stamp in story(lab, vm).stamps if stamp.t > t_ns and host in (None, stamp.host)
    )


def wait_stamps(
    lab: Lab,
    vm: str,
    count: int,
    *,
    since_ns: int = 0,
    host: str | None = None,
    deadline_s: float = BOOT_S,
) -> None:
    """Until the VM has reported so many stamps after a time (and on a host)."""
    where = f" on host {host}" if host else ""
    wait_until(
        f"{count} stamps of {vm}{where}",
        lambda: stamps_since(lab, vm, since_ns, host) >= count,
        deadline_s,
        0.2,
    )
