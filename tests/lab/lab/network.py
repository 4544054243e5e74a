"""The job of this module is: the lab's wires. One network namespace per host and for the witness,
and a private switch.

Both links run through the switch namespace, a bridge each: `repl` (A and B) and `lan` (A, B and the
witness). A wire is cut at the switch, so that the hosts keep their interface and address and
packets vanish without an error, as with a pulled cable. Inside a host the interfaces are called
repl0 and lan0. Nothing is reachable from outside these namespaces.
"""

import os
import subprocess

from .procs import LabError

ADDRESSES = {
    "repl": {"a": "10.10.1.1", "b": "10.10.1.2"},
    "lan": {"a": "10.10.2.1", "b": "10.10.2.2", "w": "10.10.2.9"},
}
NOWHERE = "02:00:00:00:00:01"  # a hardware address nobody in the lab has


def ip(*argv: str) -> str:
    done = subprocess.run(["ip", *argv], text=True, capture_output=True)
    if done.returncode != 0:
        raise LabError(f"ip {' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout


class Network:
    def __init__(self, lab_name: str):
        self.namespaces = {part: f"havm-{lab_name}-{part}" for part in ("a", "b", "w", "sw")}

    def create(self) -> None:
        for name in self.namespaces.values():
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        switch = self.namespaces["sw"]
        for link, members in ADDRESSES.items():
            # no address and no IPv6 on the switch: it forwards frames, and says nothing itself
            ip("-n", switch, "link", "add", link, "type", "bridge", "forward_delay", "0")
            ip("-n", switch, "link", "set", link, "up")
            for host, address in members.items():
                inside = self.namespaces[host]
                ip(
                    "-n",
                    switch,
                    "link",
                    "add",
                    f"{link}-{host}",
                    "type",
                    "veth",
                    "peer",
                    "name",
                    f"{link}0",
                    "netns",
                    inside,
                )
                ip("-n", switch, "link", "set", f"{link}-{host}", "master", link, "up")
                ip("-n", inside, "addr", "add", f"{address}/24", "dev", f"{link}0")
                ip("-n", inside, "link", "set", f"{link}0", "up")

    def destroy(self) -> None:
        for name in self.namespaces.values():
            if os.path.exists(f"/run/netns/{name}"):
                ip("netns", "del", name)

    def inode(self, part: str) -> int | None:
        try:
            return os.stat(f"/run/netns/{self.namespaces[part]}").st_ino
        except OSError:
            return None

    def set_port(self, link: str, host: str, up: bool) -> None:
        """The wire between one host and the switch."""
        ip("-n", self.namespaces["sw"], "link", "set", f"{link}-{host}", "up" if up else "down")

    def set_link(self, link: str, up: bool) -> None:
        """The whole link: all its wires."""
        for host in ADDRESSES[link]:
            self.set_port(link, host, up)

    def set_host(self, host: str, up: bool) -> None:
        """All wires of one host."""
        for link, members in ADDRESSES.items():
            if host in members:
                self.set_port(link, host, up)

    def set_direction(self, link: str, source: str, target: str, up: bool) -> None:
        """Only the packets from source to target: they are sent to a hardware address nobody
        has."""
        name, device, address = self.namespaces[source], f"{link}0", ADDRESSES[link][target]
        if up:
            ip("-n", name, "neigh", "del", address, "dev", device)
        else:
            ip(
                "-n",
                name,
                "neigh",
                "replace",
                address,
                "lladdr",
                NOWHERE,
                "dev",
                device,
                "nud",
                "permanent",
            )

    def set_path(self, link: str, one: str, other: str, up: bool) -> None:
        """The packets between two members of a link, both ways; the other members notice
        nothing."""
        self.set_direction(link, one, other, up)
        self.set_direction(link, other, one, up)
