"""The job of this program is: the lab by hand (`./dev lab …`): a kept lab to look around in, with
havm running in it when built.

  up [--name N] [--bare]     two hosts, witness, havmd on both (--bare: without havm's programs);
     [--honest-disk]         the hosts' disks lose nothing at a power cut
  down [--name N | --all]    removes the lab; --all: every lab of this machine, whoever made it
  status                     the labs there are
  exec [--name N] A|B CMD…   a program on a host
  cut|restore [--name N] repl|lan|a|b     wires
  power-off|power-on [--name N] A|B       the power of a host
  vm [--name N] A|B VM       defines and starts the stamping guest VM on a host
"""

import argparse
import sys

from . import vms
from .lab import Lab
from .procs import LabError
from .product import Product


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="dev lab", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = top.add_subparsers(dest="verb", required=True)

    def verb(name: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name)
        one.add_argument("--name", default="hand")
        return one

    begin = verb("up")
    begin.add_argument("--bare", action="store_true")
    begin.add_argument("--honest-disk", action="store_true")
    verb("down").add_argument("--all", action="store_true")
    verb("status")
    run = verb("exec")
    run.add_argument("host", type=str.lower, choices=["a", "b"])
    run.add_argument("argv", nargs=argparse.REMAINDER)
    for name in ("cut", "restore"):
        verb(name).add_argument("wire", choices=["repl", "lan", "a", "b"])
    for name in ("power-off", "power-on"):
        verb(name).add_argument("host", type=str.lower, choices=["a", "b"])
    guest = verb("vm")
    guest.add_argument("host", type=str.lower, choices=["a", "b"])
    guest.add_argument("vm")
    return top


def up(options) -> None:
    lab = Lab(options.name)
    lab.up(keep=True, honest_disk=options.honest_disk)
    try:
        if not options.bare:
            Product(lab).start()
    except BaseException:
        lab.down()
        raise
    print(f"lab '{lab.name}' is up in {lab.dir}")


def down(options) -> None:
    for lab in Lab.all_labs() if options.all else [Lab.attach(options.name)]:
        lab.down()
        print(f"lab '{lab.name}' is gone")


def status() -> None:
    for lab in Lab.all_labs():
        hosts = ", ".join(
            f"host {host.name} {'on' if host.is_on() else 'off'}" for host in lab.hosts.values()
        )
        print(f" {lab.name:<16} {hosts}   {lab.dir}")


def wire(options) -> None:
    network, on = Lab.attach(options.name).network, options.verb == "restore"
    if options.wire in ("a", "b"):
        network.set_host(options.wire, on)
    else:
        network.set_link(options.wire, on)


def power(options) -> None:
    lab = Lab.attach(options.name)
    host = lab.hosts[options.host]
    if options.verb == "power-off":
        lab.power_cut(host)
    elif host.path("/etc/havm/cluster.json").exists():
        Product(lab).boot(host)
    else:
        lab.boot(host)


def guest(options) -> None:
    lab = Lab.attach(options.name)
    host = lab.hosts[options.host]
    vms.define_vm(lab, host, options.vm)
    host.virsh("start", options.vm)


def main() -> int:
    options = parser().parse_args()
    Lab.cleanup_stale()
    if options.verb == "exec":
        return Lab.attach(options.name).hosts[options.host].exec_here(options.argv)
    actions = {
        "up": up,
        "down": down,
        "status": lambda _: status(),
        "cut": wire,
        "restore": wire,
        "power-off": power,
        "power-on": power,
        "vm": guest,
    }
    actions[options.verb](options)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"error: {error}")
