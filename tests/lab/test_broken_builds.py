"""The verdict proven: each deliberately broken build must fail under the very fault that the honest
one passes."""

import json
import pathlib
import subprocess
import sys

import pytest

from lab.procs import boottime_ns
from scene import LONGER_THAN_LEASE_S

HERE = pathlib.Path(__file__).resolve().parent
# The owner's guard sleeps this long: far more than a successor that does not wait needs, far less
# than the lease (6 s)
GUARD_ASLEEP_S = 4


def play_demo(*options) -> tuple[int, dict]:
    done = subprocess.run(
        [sys.executable, "-B", str(HERE / "demo.py"), "--json", *options],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout, f"the demo said nothing: {done.stderr}"
    return done.returncode, json.loads(done.stdout)


def test_the_demo_passes():
    status, result = play_demo()
    assert (status, result["verdict"], result["acked_lost"], result["ran_twice"]) == (
        0,
        "pass",
        0,
        False,
    ), result
    assert result["started_s"] <= 10
    for phase in ("detect_s", "decide_s", "lease_wait_s", "start_s", "guest_up_s", "resync_s"):
        assert result[phase] is not None and result[phase] >= 0, (phase, result)


def test_the_demo_fails_on_an_engine_that_acknowledges_before_the_partner_has_it():
    status, result = play_demo("--replace", "havm-repl=havm-repl-broken-ack")
    assert status == 1 and result["verdict"] == "fail" and result["acked_lost"] > 0, result


@pytest.mark.parametrize("build", ["honest", "broken"])
def test_the_verdict_sees_an_engine_that_answers_a_flush_without_flushing(make_scene, build):
    """The one fault that flushes are there for: both hosts lose their power, so that only what is
    on the media counts."""
    replaced = {"havm-repl": "havm-repl-broken-flush"} if build == "broken" else None
    scene = make_scene(replaced=replaced).protect_and_run()
    cut_ns = scene.lab.power_cut(scene.a)
    scene.lab.power_cut(scene.b)
    for host in (scene.a, scene.b):
        scene.product.boot(host)
    scene.stamps(10, since_ns=boottime_ns())
    verdict = scene.verdict(cut_ns=cut_ns)
    if build == "honest":
        assert verdict["verdict"] == "pass", verdict
    else:
        assert verdict["verdict"] == "fail" and verdict["acked_lost"] > 0, verdict


def isolate_the_owner_while_its_guard_sleeps(scene) -> int:
    """The one fault that the wait for the lease is there for: an old owner that is cut off and slow
    to stop."""
    (guard,) = scene.a.pids_of("havm-guard")
    cut_ns = scene.lab.cut_between_hosts({"b"})
    scene.a.exec(
        [
            "bash",
            "-c",
            f"guard=$(pgrep -x havm-guard); kill -STOP $guard; sleep {GUARD_ASLEEP_S}; "
            f"kill -CONT $guard",
        ]
    )
    assert guard in scene.a.pids_of("havm-guard")
    scene.stamps(10, since_ns=cut_ns, host=scene.b)
    scene.stamps_for(LONGER_THAN_LEASE_S, scene.b)
    return cut_ns


@pytest.mark.parametrize("build", ["honest", "broken"])
def test_the_verdict_sees_a_successor_that_does_not_wait_for_the_lease(make_scene, build):
    replaced = {"havmd": "havmd-broken-lease-wait"} if build == "broken" else None
    scene = make_scene(replaced=replaced).protect_and_run()
    cut_ns = isolate_the_owner_while_its_guard_sleeps(scene)
    verdict = scene.verdict(cut_ns=cut_ns)
    if build == "honest":
        assert verdict["verdict"] == "pass", verdict
    else:
        assert verdict["verdict"] == "fail" and verdict["ran_twice"], verdict
