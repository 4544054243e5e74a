"""The lab judged, without havm: are the hosts really apart, is a power cut really one, is nothing
left behind."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from lab import procs, vms
from lab.disk import ON_DISK
from lab.domain import SMALL_DISK_BYTES
from lab.lab import Lab
from lab.network import ADDRESSES
from lab.procs import wait_until
from lab.verdict import judge, last_cut

HERE = pathlib.Path(__file__).resolve().parent
# Answers a datagram with the same datagram
ECHO = """import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 9999))
while True:
    data, peer = s.recvfrom(100)
    s.sendto(data, peer)
"""
ASK = """import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(0.5)
s.sendto(b"x", (sys.argv[1], 9999))
try:
    s.recvfrom(10)
except socket.timeout:
    sys.exit(7)
"""
SILENT = 7


def left_of(lab: Lab) -> list[str]:
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
    left = [name for name in names if name.startswith(f"havm-{lab.name}-")]
    left += [str(lab.dir)] if lab.dir.exists() else []
    with open("/proc/mounts", encoding="utf-8") as mounts:
        left += [line for line in mounts if str(lab.dir) in line]
    return left + [
        " ".join(words)
        for words in map(procs.command_line, procs.all_pids())
        if any(str(lab.dir) in word for word in words)
    ]


def stamping_vm(lab: Lab, host, vm: str = "web1") -> None:
    vms.define_vm(lab, host, vm, disk_bytes=SMALL_DISK_BYTES)
    host.virsh("start", vm)


def test_hosts_are_apart_and_nothing_is_left(make_lab):
    lab = make_lab().up()
    assert [host.exec(["hostname"]).stdout.strip() for host in (lab.a, lab.b)] == ["a", "b"]
    assert lab.a.exec(["virsh", "hostname"]).stdout.strip() == "a"
    identities = {
        host.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout for host in (lab.a, lab.b)
    }
    assert len(identities) == 2
    assert pathlib.Path("/proc/sys/kernel/random/boot_id").read_text() not in identities
    lab.a.exec(["touch", "/etc/havm/only-a", "/run/only-a", "/var/lib/havm/only-a"])
    assert lab.b.exec(["ls", "/etc/havm", "/var/lib/havm"]).stdout.count("only-a") == 0
    assert not any(
        pathlib.Path(folder, "only-a").exists() for folder in ("/etc/havm", "/run", "/var/lib/havm")
    )
    lab.down()
    assert not left_of(lab)


def test_power_cut_kills_everything_and_a_boot_is_a_new_one(make_lab):
    lab = make_lab().up()
    stamping_vm(lab, lab.a)
    # a daemon that has cut every tie to its starter
    lab.a.exec(
        ["bash", "-c", "setsid -f bash -c 'setsid -f sleep 3600 </dev/null >/dev/null 2>&1'"]
    )
    vms.wait_stamps(lab, "web1", 60)
    before, inode = lab.a.boot_id(), lab.network.inode("a")
    lab.a.exec(["touch", "/run/of-this-boot"])
    assert {"sleep", "libvirtd"} <= {
        procs.executable_name(pid) for pid in procs.in_namespace("net", inode)
    }
    cut_ns = lab.power_cut(lab.a)
    assert not procs.in_namespace("net", inode) and not lab.a.is_on()
    lab.boot(lab.a)
    assert lab.a.boot_id() != before
    assert lab.a.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout.strip() == lab.a.boot_id()
    assert lab.a.exec(["ls", "/run/of-this-boot"], check=False).returncode != 0
    assert lab.a.virsh("list", "--all", "--name").stdout.split() == ["web1"]
    lab.a.virsh("start", "web1")
    vms.wait_stamps(lab, "web1", 5, since_ns=cut_ns + 1_000_000_000)
    verdict = judge(lab.history(), "web1")
    assert verdict["verdict"] == "pass" and verdict["boots"] == 2, verdict


@pytest.mark.parametrize("honest", [False, True], ids=["lossy", "honest"])
def test_a_power_cut_loses_what_was_not_flushed(make_lab, honest):
    lab = make_lab().up(honest_disk=honest)
    flushed = {target: f"{target}/flushed" for target in ON_DISK.values()}
    volatile = {target: f"{target}/volatile" for target in ON_DISK.values()}
    fill = "tr '\\0' x </dev/zero | dd bs=4k count=256 iflag=fullblock status=none"
    for target in ON_DISK.values():
        lab.a.exec(["bash", "-c", f"{fill} conv=fsync of={flushed[target]}"])
        lab.a.exec(["bash", "-c", f"{fill} of={volatile[target]}"])
    whole = b"x" * (256 * 4096)
    everything = [*flushed.values(), *volatile.values()]
    assert all(lab.a.path(file).read_bytes() == whole for file in everything)
    lab.power_cut(lab.a)
    for when in ("off", "booted again"):
        assert all(lab.a.path(file).read_bytes() == whole for file in flushed.values()), when
        kept = [lab.a.path(file).read_bytes() == whole for file in volatile.values()]
        assert kept == [honest, honest], when
        if when == "off":
            lab.boot(lab.a)


def test_the_same_vm_on_both_hosts_is_seen_by_the_verdict(make_lab):
    lab = make_lab().up()
    for host in (lab.a, lab.b):
        vms.define_vm(lab, host, "web1", disk_bytes=SMALL_DISK_BYTES)
        host.virsh("start", "web1")
    vms.wait_stamps(lab, "web1", 60, host="a")
    lab.mark("cut", nothing=True)
    vms.wait_stamps(lab, "web1", 5, since_ns=last_cut(lab.history()), host="b")
    verdict = judge(lab.history(), "web1", expect_boot=False)
    assert verdict["verdict"] == "fail" and verdict["ran_twice"], verdict


def test_the_guest_powers_off_when_asked(make_lab):
    lab = make_lab().up()
    stamping_vm(lab, lab.a)
    vms.wait_stamps(lab, "web1", 3)
    lab.a.virsh("shutdown", "web1")
    wait_until(
        "the guest to power off",
        lambda: lab.a.virsh("domstate", "web1").stdout.strip() == "shut off",
        30,
    )


def test_labs_side_by_side(make_lab):
    labs = [make_lab().up(), make_lab().up()]
    for lab in labs:
        stamping_vm(lab, lab.a)
    for lab in labs:
        vms.wait_stamps(lab, "web1", 5, host="a")
    labs[0].down()
    assert not left_of(labs[0])
    vms.wait_stamps(labs[1], "web1", 5, since_ns=procs.boottime_ns())


def test_a_killed_runner_leaves_what_the_next_one_removes(make_lab):
    lab = make_lab()
    code = (
        f"import sys, time; sys.path.insert(0, {str(HERE)!r})\n"
        f"from lab.lab import Lab\nfrom lab import vms\nlab = Lab({lab.name!r}).up()\n"
        f"vms.define_vm(lab, lab.b, 'web1', disk_bytes=1 << 20)\nlab.b.virsh('start', 'web1')\n"
        f"print('up', flush=True)\ntime.sleep(600)"
    )
    runner = subprocess.Popen([sys.executable, "-B", "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert runner.stdout.readline() == "up\n"
        assert lab.name not in Lab.cleanup_stale(), "a lab whose owner lives must stay"
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait()
        runner.stdout.close()
    assert left_of(lab)
    assert lab.name in Lab.cleanup_stale()
    assert not left_of(lab)


@pytest.fixture(scope="module")
def wired():
    lab = Lab(f"w{os.getpid()}").up(boot=False)
    echoes = [
        subprocess.Popen(
            ["ip", "netns", "exec", lab.network.namespaces[part], "/usr/bin/python3", "-c", ECHO]
        )
        for part in "abw"
    ]
    try:
        everything = {
            (source, target, link)
            for link, parts in ADDRESSES.items()
            for source in parts
            for target in parts
            if source != target
        }
        wait_until("all wires to work", lambda: heard(lab) == everything, 20)
        yield lab, everything
    finally:
        for echo in echoes:
            echo.kill()
            echo.wait()
        lab.down()


def heard(lab: Lab) -> set[tuple[str, str, str]]:
    """(source, target, link) of every pair that gets an answer; asked all at once."""
    asking = {}
    for link, parts in ADDRESSES.items():
        for source in parts:
            for target in parts.keys() - {source}:
                argv = [
                    "ip",
                    "netns",
                    "exec",
                    lab.network.namespaces[source],
                    "/usr/bin/python3",
                    "-c",
                    ASK,
                    parts[target],
                ]
                asking[source, target, link] = subprocess.Popen(argv)
    answers = {key: process.wait() for key, process in asking.items()}
    # a cut wire must be silent, not refuse: an error would tell the sender what a pulled cable does
    # not
    assert set(answers.values()) <= {0, SILENT}, answers
    return {key for key, status in answers.items() if status == 0}


def between(*pairs: tuple[str, str, str]) -> set:
    return {(one, other, link) for one, other, link in pairs} | {
        (other, one, link) for one, other, link in pairs
    }


HOSTS_APART = (("a", "b", "repl"), ("a", "b", "lan"))
CUTS = {
    "link": (lambda lab: lab.cut_link("repl"), between(("a", "b", "repl"))),
    "hosts-witness-for-both": (
        lambda lab: lab.cut_between_hosts({"a", "b"}),
        between(*HOSTS_APART),
    ),
    "hosts-witness-for-a": (
        lambda lab: lab.cut_between_hosts({"a"}),
        between(*HOSTS_APART, ("b", "w", "lan")),
    ),
    "hosts-witness-for-b": (
        lambda lab: lab.cut_between_hosts({"b"}),
        between(*HOSTS_APART, ("a", "w", "lan")),
    ),
    "witness-from-a": (lambda lab: lab.cut_witness("a"), between(("a", "w", "lan"))),
    "host": (
        lambda lab: lab.network.set_host("b", False),
        between(*HOSTS_APART, ("b", "w", "lan")),
    ),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_silences_exactly_what_it_names(wired, name):
    lab, everything = wired
    cut, silenced = CUTS[name]
    cut(lab)
    try:
        assert heard(lab) == everything - silenced
    finally:
        lab.network.set_host("b", True)
        lab.network.set_link("repl", True)
        if name.startswith("hosts"):
            lab.restore_between_hosts()
        if name.startswith("witness"):
            lab.restore_witness("a")
    wait_until("all wires to work again", lambda: heard(lab) == everything, 20)
