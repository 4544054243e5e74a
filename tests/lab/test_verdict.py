"""The verdict judged: every bad history must be rejected for its own reason, every good one
accepted."""

import pathlib
import subprocess

import pytest

from lab import procs
from lab.history import read_history
from lab.verdict import judge

HISTORIES = pathlib.Path(__file__).resolve().parent / "histories"


def files(folder: str) -> list:
    found = sorted((HISTORIES / folder).glob("*.jsonl"))
    assert found, f"no histories under {HISTORIES / folder}"
    return [pytest.param(path, id=path.stem) for path in found]


def judged(path: pathlib.Path) -> tuple[dict, dict]:
    records = read_history(path)
    about = records[0]
    assert about["kind"] == "about", f"{path} does not begin with what it is about"
    return about, judge(records[1:], about["vm"], expect_boot=about["expect_boot"])


@pytest.mark.parametrize("path", files("good"))
def test_good_history_passes(path):
    _, verdict = judged(path)
    assert verdict["verdict"] == "pass", verdict
    assert verdict["acked_lost"] == 0 and not verdict["ran_twice"] and not verdict["reasons"]


@pytest.mark.parametrize("path", files("bad"))
def test_bad_history_is_rejected(path):
    about, verdict = judged(path)
    assert verdict["verdict"] == about["verdict"] != "pass", verdict
    assert any(about["reason"] in reason for reason in verdict["reasons"]), verdict
    if "lost" in about["reason"]:
        assert verdict["acked_lost"] > 0
    if "came after boot" in about["reason"] or "two QEMUs" in about["reason"]:
        assert verdict["ran_twice"]


def test_empty_history_is_rejected():
    assert judge([], "web1")["verdict"] == "inconclusive"


def test_another_vm_is_no_evidence():
    records = read_history(HISTORIES / "good" / "failover.jsonl")[1:]
    assert judge(records, "web2")["verdict"] == "inconclusive"


@pytest.mark.parametrize("path", files("good"))
def test_order_in_the_file_does_not_matter(path):
    records = read_history(path)
    about, rest = records[0], records[1:]
    assert judge(rest[::-1], about["vm"], expect_boot=about["expect_boot"])["verdict"] == "pass"


def test_a_process_is_dying_only_when_it_was_killed():
    child = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        assert not procs.dying(child.pid)
        child.kill()
        # Until it is waited for: killed, exiting or a zombie.
        assert procs.dying(child.pid)
    finally:
        child.kill()
        child.wait()
    assert procs.dying(child.pid)
