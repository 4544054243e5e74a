"""The job of Scene is: what most lab tests begin with, two hosts, havm on both, one protected VM
that stamps, in sync."""

import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import vms  # noqa: E402
from lab.domain import SMALL_DISK_BYTES, disk_path  # noqa: E402
from lab.host import Host  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.procs import boottime_ns, wait_until  # noqa: E402
from lab.product import Product  # noqa: E402
from lab.verdict import ENOUGH_STAMPS, judge  # noqa: E402

TAKEOVER_S = 120
# More than the lease of the default profile (6 s): whatever needs a lease would have stopped by
# then
LONGER_THAN_LEASE_S = 8


class Scene:
    VM = "web1"

    def __init__(self, lab: Lab, **product_options):
        self.lab = lab
        self.a, self.b = lab.a, lab.b
        self.product = Product(lab, **product_options)

    def start(self) -> "Scene":
        self.lab.boot_hosts()
        self.product.start()
        return self

    def protect_and_run(self, disk_bytes: int = SMALL_DISK_BYTES) -> "Scene":
        """The VM protected and running on host a, in sync, with enough stamps for a verdict."""
        vms.define_vm(self.lab, self.a, self.VM, disk_bytes=disk_bytes)
        self.product.havm(self.a, "protect", self.VM, "--peer", "b")
        self.product.havm(self.a, "start", self.VM)
        self.in_sync(self.a)
        self.stamps(ENOUGH_STAMPS + 10, since_ns=boottime_ns())
        return self

    # --- waiting ----------------------------------------------------------------------------------

    def stamps(
        self, count: int, *, since_ns: int, host: Host | None = None, deadline_s: float = TAKEOVER_S
    ) -> None:
        vms.wait_stamps(
            self.lab,
            self.VM,
            count,
            since_ns=since_ns,
            host=host.name if host else None,
            deadline_s=deadline_s,
        )

    def in_sync(self, host: Host, deadline_s: float = 180) -> None:
        wait_until(
            f"{self.VM} to be in sync, seen from host {host.name}",
            lambda: self.info(host)["sync"]["state"] == "in-sync",
            deadline_s,
            0.3,
        )

    def off(self, host: Host) -> None:
        wait_until(f"{self.VM} to be off", lambda: self.info(host)["state"] == "shut off", 60, 0.2)

    def stamps_for(self, seconds: float, host: Host) -> None:
        """The guest must go on on this host: stamps later than `seconds` from now."""
        self.stamps(
            10, since_ns=boottime_ns() + int(seconds * 1e9), host=host, deadline_s=seconds + 60
        )

    def asked(self, **details) -> int:
        """Marks as the cut the moment before something is asked for or killed, with the guest at
        work: the verdict wants its last stamp before the cut to be fresh."""
        self.stamps(1, since_ns=boottime_ns())
        return self.lab.mark("cut", **details)

    # --- looking ----------------------------------------------------------------------------------

    def info(self, host: Host) -> dict:
        return self.product.dominfo(host, self.VM)

    def havm(self, host: Host, *argv: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.product.havm(host, *argv, check=check)

    def boots(self) -> list:
        return vms.story(self.lab, self.VM).boots

    def last_acked(self) -> int:
        return max(stamp.number for stamp in vms.story(self.lab, self.VM).stamps)

    def image(self, host: Host) -> pathlib.Path:
        return host.path(disk_path(self.VM))

    def longest_silence_s(self, since_ns: int, until_ns: int) -> float:
        """The longest time without a stamp in this interval."""
        times = [
            stamp.t
            for stamp in vms.story(self.lab, self.VM).stamps
            if since_ns <= stamp.t <= until_ns
        ]
        edges = [since_ns, *times, until_ns]
        return max(later - earlier for earlier, later in zip(edges, edges[1:])) / 1e9

    def verdict(self, **options) -> dict:
        return judge(self.lab.history(), self.VM, **options)

    def assert_passes(self, **options) -> None:
        verdict = self.verdict(**options)
        assert verdict["verdict"] == "pass", verdict
