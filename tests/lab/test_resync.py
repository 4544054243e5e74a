"""Resyncs that wait for a person, and what the guest and both nodes see of that."""

from lab.procs import boottime_ns, wait_until
from scene import LONGER_THAN_LEASE_S

REASON = "backup runs"


def copying(scene, host) -> str | None:
    sync = scene.info(host)["sync"]
    return sync["copying"] if sync["state"] == "resyncing" else None


def test_a_paused_resync_waits_until_it_is_resumed(scene):
    cut_ns = scene.lab.power_cut(scene.b)
    wait_until(
        "host a to know that it is alone", lambda: scene.info(scene.a)["in_sync"] == ["a"], 60
    )
    # what is written from here on is what the partner will lack
    scene.stamps(20, since_ns=boottime_ns(), host=scene.a)
    plan = scene.product.json(
        scene.a, "resync-pause", scene.VM, "--reason", REASON, "--dry-run"
    )
    assert plan["plan"] and scene.info(scene.a)["sync"]["reason"] != REASON
    scene.havm(scene.a, "resync-pause", scene.VM, "--reason", REASON)

    scene.product.boot(scene.b)
    for host in (scene.a, scene.b):
        wait_until(
            f"host {host.name} to show a paused resync",
            lambda host=host: copying(scene, host) == "paused",
            120,
            0.3,
        )
        assert scene.info(host)["sync"]["reason"] == REASON
    assert f": {REASON}" in scene.havm(scene.a, "dominfo", scene.VM).stdout

    # It outlives the agent, and the guest notices nothing of all this.
    scene.product.kill(scene.a, "havmd")
    scene.product.start_havmd(scene.a)
    wait_until(
        "host a to show a paused resync again", lambda: copying(scene, scene.a) == "paused", 60, 0.3
    )
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.a)
    info = scene.info(scene.a)
    assert (info["in_sync"], info["sync"]["copying"]) == (["a"], "paused"), info

    # Any node may be asked.
    scene.havm(scene.b, "resync-resume", scene.VM)
    scene.in_sync(scene.a)
    assert len(scene.boots()) == 1
    scene.assert_passes(cut_ns=cut_ns, expect_boot=False)
