"""What a person does to a protected VM: moves it by hand, starts it the wrong way, stops it, takes
the protection back."""

import hashlib

from lab import vms
from lab.disk import same_content
from lab.domain import SMALL_DISK_BYTES, disk_path
from lab.procs import boottime_ns, wait_until


def digest(path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_failover_by_hand_and_back(scene):
    for source, target in ((scene.a, scene.b), (scene.b, scene.a)):
        asked_ns = scene.asked(by_hand=True)
        scene.havm(source, "failover", scene.VM)
        scene.stamps(60, since_ns=asked_ns, host=target)
        assert not source.qemu_pids(scene.VM)
        assert scene.info(target)["owner"] == target.name
        scene.assert_passes(cut_ns=asked_ns)
        scene.in_sync(target)
    assert len(scene.boots()) == 3


def test_virsh_start_on_the_wrong_host_is_refused(scene):
    since = boottime_ns()
    refused = scene.b.virsh("start", scene.VM, check=False)
    assert refused.returncode == 1
    assert f"VM '{scene.VM}' is protected by havm" in refused.stderr, refused.stderr
    assert not scene.b.qemu_pids(scene.VM)
    scene.stamps(20, since_ns=since, host=scene.a)
    assert scene.info(scene.a)["sync"]["state"] == "in-sync"
    scene.asked(nothing=True)
    scene.stamps(10, since_ns=boottime_ns(), host=scene.a)
    scene.assert_passes(expect_boot=False)


def test_virsh_start_behind_the_hook_fails_at_the_disk(scene):
    """Somebody removed the hook: the partner's engine serves no disk, so a QEMU there ends before
    its guest could run."""
    hook = scene.b.dir / "etc-libvirt" / "hooks" / "qemu.d" / "50-havm"
    hook.write_text("#!/bin/sh\nexit 0\n")
    since = boottime_ns()
    refused = scene.b.virsh("start", scene.VM, check=False)
    assert refused.returncode == 1 and not scene.b.qemu_pids(scene.VM), refused.stdout
    assert "vda" in refused.stderr or "nbd" in refused.stderr.lower(), refused.stderr
    scene.stamps(10, since_ns=since, host=scene.a)
    assert not [each for each in scene.lab.history() if each.get("host") == "b" and "text" in each]
    assert scene.info(scene.a)["sync"]["state"] == "in-sync" and len(scene.boots()) == 1


def test_shutdown_stays_off_and_start_goes_on(scene):
    asked_ns = scene.asked(by_hand=True)
    scene.havm(scene.a, "shutdown", scene.VM)
    scene.off(scene.a)
    assert not scene.a.qemu_pids(scene.VM) and not scene.b.qemu_pids(scene.VM)
    started_ns = boottime_ns()
    scene.havm(scene.a, "start", scene.VM)
    scene.stamps(10, since_ns=started_ns, host=scene.a)
    scene.assert_passes(cut_ns=asked_ns)


def test_unprotect_gives_back_identical_data(scene):
    scene.havm(scene.a, "shutdown", scene.VM)
    scene.off(scene.a)
    acked = scene.last_acked()
    before = digest(scene.image(scene.a))
    assert same_content(scene.image(scene.a), scene.image(scene.b)), "the replicas differ"
    scene.havm(scene.a, "unprotect", scene.VM)
    assert digest(scene.image(scene.a)) == before
    xml = scene.a.virsh("dumpxml", "--inactive", scene.VM).stdout
    assert f"<source file='{disk_path(scene.VM)}'/>" in xml and "protocol='nbd'" not in xml
    assert (
        scene.b.virsh("domstate", scene.VM, check=False).returncode == 1
    ), "still defined on host b"
    since = boottime_ns()
    scene.a.virsh("start", scene.VM)
    scene.stamps(5, since_ns=since, host=scene.a)
    last_boot = scene.boots()[-1]
    assert last_boot.bad == 0 and last_boot.last >= acked


def test_protect_and_unprotect_of_a_running_vm(make_scene):
    scene = make_scene()
    vms.define_vm(scene.lab, scene.a, scene.VM, disk_bytes=SMALL_DISK_BYTES)
    original = scene.a.virsh("dumpxml", "--inactive", scene.VM).stdout
    scene.a.virsh("start", scene.VM)
    scene.stamps(20, since_ns=0, host=scene.a)
    refused = scene.havm(scene.a, "protect", scene.VM, "--peer", "b", check=False)
    assert refused.returncode == 1 and "--restart" in refused.stderr, refused.stderr
    for verb in (["protect", scene.VM, "--peer", "b"], ["unprotect", scene.VM]):
        scene.stamps(60, since_ns=boottime_ns(), host=scene.a)
        asked_ns = scene.asked(by_hand=True)
        scene.havm(scene.a, *verb, "--restart")
        scene.stamps(20, since_ns=boottime_ns(), host=scene.a)
        scene.assert_passes(cut_ns=asked_ns)
    assert scene.a.virsh("dumpxml", "--inactive", scene.VM).stdout == original


def test_both_replicas_are_equal_after_a_shutdown(scene):
    scene.stamps(200, since_ns=boottime_ns(), host=scene.a)
    scene.havm(scene.a, "shutdown", scene.VM)
    scene.off(scene.a)
    wait_until(
        "both replicas to be equal",
        lambda: same_content(scene.image(scene.a), scene.image(scene.b)),
        20,
        1,
    )
