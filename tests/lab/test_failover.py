"""One fault at a time on a protected VM that runs on host a, in sync. The observer decides whether
anything was lost or ran twice."""

import pytest

from lab import procs
from lab.procs import boottime_ns, wait_until
from lab.verdict import ENOUGH_STAMPS
from scene import LONGER_THAN_LEASE_S, TAKEOVER_S

STARTED_WITHIN_S = 10
# Freeze, shrink or a renewed session take this long at most before the guest goes on
PAUSE_S = 30


def returned_and_in_sync(scene, host, other):
    """A host that lost its power comes back as a replica, and the VM stays where it is."""
    running = {pid: procs.start_ticks(pid) for pid in other.qemu_pids(scene.VM)}
    scene.product.boot(host)
    scene.in_sync(other)
    assert not host.qemu_pids(scene.VM), f"host {host.name} started a VM that runs on {other.name}"
    assert {pid: procs.start_ticks(pid) for pid in other.qemu_pids(scene.VM)} == running
    info = scene.info(other)
    assert (info["owner"], info["in_sync"]) == (other.name, ["a", "b"]), info
    scene.stamps(5, since_ns=boottime_ns(), host=other)


def test_power_cut_of_the_owner(scene):
    cut_ns = scene.lab.power_cut(scene.a)
    started = scene.product.wait_event(scene.b, scene.VM, "vm-started", cut_ns, TAKEOVER_S)
    scene.stamps(10, since_ns=cut_ns, host=scene.b)
    scene.assert_passes(cut_ns=cut_ns)
    assert (started["time_ns"] - cut_ns) / 1e9 <= STARTED_WITHIN_S
    returned_and_in_sync(scene, scene.a, scene.b)
    scene.assert_passes(cut_ns=cut_ns)


def test_a_second_power_cut_after_the_first_was_healed(scene):
    scene.lab.power_cut(scene.a)
    scene.stamps(10, since_ns=boottime_ns(), host=scene.b)
    returned_and_in_sync(scene, scene.a, scene.b)
    scene.stamps(ENOUGH_STAMPS, since_ns=boottime_ns(), host=scene.b)
    cut_ns = scene.lab.power_cut(scene.b)
    scene.stamps(10, since_ns=cut_ns, host=scene.a)
    scene.assert_passes(cut_ns=cut_ns)
    assert len(scene.boots()) == 3


def test_power_cut_of_the_partner(scene):
    cut_ns = scene.lab.power_cut(scene.b)
    scene.stamps(20, since_ns=cut_ns, host=scene.a, deadline_s=PAUSE_S)
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.a)
    wait_until(
        "host a to know that it is alone", lambda: scene.info(scene.a)["in_sync"] == ["a"], PAUSE_S
    )
    assert scene.info(scene.a)["protection"]["protected"] is False
    returned_and_in_sync(scene, scene.b, scene.a)
    assert len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


def test_links_cut_and_only_the_owner_reaches_the_witness(scene):
    cut_ns = scene.lab.cut_between_hosts({"a"})
    scene.stamps(20, since_ns=cut_ns, host=scene.a, deadline_s=PAUSE_S)
    scene.stamps_for(2 * LONGER_THAN_LEASE_S, scene.a)
    assert not scene.b.qemu_pids(scene.VM)
    scene.lab.restore_between_hosts()
    scene.in_sync(scene.a)
    assert len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


def test_links_cut_and_only_the_partner_reaches_the_witness(scene):
    cut_ns = scene.lab.cut_between_hosts({"b"})
    scene.stamps(20, since_ns=cut_ns, host=scene.b)
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.b)
    assert all(procs.state(pid) == "T" for pid in scene.a.qemu_pids(scene.VM))
    scene.lab.restore_between_hosts()
    wait_until(
        "the old owner to end its copy of the VM", lambda: not scene.a.qemu_pids(scene.VM), 60
    )
    scene.in_sync(scene.b)
    scene.stamps(5, since_ns=boottime_ns(), host=scene.b)
    assert len(scene.boots()) == 2
    scene.assert_passes(cut_ns=cut_ns)


def test_links_cut_and_both_reach_the_witness(scene):
    cut_ns = scene.lab.cut_between_hosts({"a", "b"})
    scene.stamps(20, since_ns=cut_ns + 5_000_000_000)
    winner = scene.info(scene.a)["owner"]
    owner = scene.lab.hosts[winner]
    scene.stamps_for(2 * LONGER_THAN_LEASE_S, owner)
    scene.lab.restore_between_hosts()
    scene.in_sync(owner)
    scene.stamps(5, since_ns=boottime_ns(), host=owner)
    scene.assert_passes(cut_ns=cut_ns, expect_boot=winner == "b")


@pytest.mark.parametrize("link", ["repl", "lan"])
def test_one_of_two_links_cut(scene, link):
    """The VM goes on where it is; with the replication link gone at worst alone, and in sync again
    after the repair."""
    cut_ns = scene.lab.cut_link(link)
    scene.stamps(20, since_ns=cut_ns, host=scene.a, deadline_s=PAUSE_S)
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.a)
    assert not scene.b.qemu_pids(scene.VM)
    scene.lab.network.set_link(link, True)
    scene.in_sync(scene.a)
    assert len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


def test_witness_down_and_nothing_else_happens(scene):
    since = boottime_ns()
    cut_ns = scene.asked(witness=True)
    scene.product.kill_witness()
    scene.stamps_for(2 * LONGER_THAN_LEASE_S, scene.a)
    assert (
        scene.longest_silence_s(since, boottime_ns()) < 2
    ), "the guest was held up although its partner was there"
    assert scene.info(scene.a)["sync"]["state"] == "in-sync"
    scene.product.start_witness()
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.a)
    assert scene.info(scene.a)["in_sync"] == ["a", "b"]
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


@pytest.mark.parametrize("where", ["a", "b"])
def test_kill_of_havmd_alone(scene, where):
    host = scene.lab.hosts[where]
    qemus = scene.a.qemu_pids(scene.VM)
    since = boottime_ns()
    cut_ns = scene.asked(program="havmd")
    scene.product.kill(host, "havmd")
    scene.stamps_for(2 * LONGER_THAN_LEASE_S, scene.a)
    scene.product.start_havmd(host)
    scene.in_sync(scene.a)
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.a)
    assert scene.a.qemu_pids(scene.VM) == qemus and not scene.b.qemu_pids(scene.VM)
    assert scene.longest_silence_s(since, boottime_ns()) < PAUSE_S
    assert len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


@pytest.mark.parametrize("where", ["a", "b"])
def test_kill_of_havm_repl_alone(scene, where):
    """The VM pauses on its lost disk (or on its lost partner) and goes on; the guest notices
    nothing but the time."""
    qemus = scene.a.qemu_pids(scene.VM)
    cut_ns = scene.asked(program="havm-repl")
    scene.product.kill(scene.lab.hosts[where], "havm-repl")
    scene.stamps(20, since_ns=cut_ns, host=scene.a, deadline_s=PAUSE_S)
    scene.in_sync(scene.a)
    scene.stamps(20, since_ns=boottime_ns(), host=scene.a)
    assert scene.a.qemu_pids(scene.VM) == qemus and len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


def test_kill_of_havm_guard_alone(scene):
    qemus = scene.a.qemu_pids(scene.VM)
    cut_ns = scene.asked(program="havm-guard")
    scene.product.kill(scene.a, "havm-guard")
    scene.stamps_for(2 * LONGER_THAN_LEASE_S, scene.a)
    wait_until("a new havm-guard", lambda: scene.a.pids_of("havm-guard"), PAUSE_S)
    assert scene.a.qemu_pids(scene.VM) == qemus and len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)


def test_reboot_of_both_hosts(scene):
    """A site-wide power cut: one starts the VM again, once, with every acknowledged stamp."""
    cut_ns = scene.lab.power_cut(scene.a)
    scene.lab.power_cut(scene.b)
    for host in (scene.a, scene.b):
        scene.product.boot(host)
    scene.stamps(20, since_ns=cut_ns)
    owner = scene.lab.hosts[scene.info(scene.a)["owner"]]
    scene.in_sync(owner)
    scene.stamps(5, since_ns=boottime_ns(), host=owner)
    assert len(scene.boots()) == 2
    scene.assert_passes(cut_ns=cut_ns)
