#!/usr/bin/python3
"""The job of this script is: to write the histories that the verdict is tested with, good ones and
one per way to be bad.

Each file begins with an "about" record: the VM, whether a boot is expected after the cut, the
verdict that must come out and a part of its reason. Recorded histories (recorded-*.jsonl) come from
real runs and are not written here.
"""

import json
import pathlib

HERE = pathlib.Path(__file__).resolve().parent
SECOND = 1_000_000_000
BOOT_A, BOOT_B = "a" * 16, "b" * 16
PID = {"a": 4001, "b": 4002}


class Story:
    """Builds a history second by second; every method takes and advances no time unless it says
    so."""

    def __init__(self):
        self.now = 1000 * SECOND
        self.records = []

    def add(self, kind, **fields):
        self.records.append({"t": self.now, "kind": kind, **fields})

    def wait(self, seconds):
        self.now += int(seconds * SECOND)

    def line(self, host, text):
        self.add("line", host=host, vm="web1", conn=1 if host == "a" else 2, text=text)

    def sample(self, **states):
        self.add(
            "sample",
            vms={
                "web1": [
                    {"host": host, "pid": PID[host], "start": 5, "state": state}
                    for host, state in states.items()
                ]
            }
            if states
            else {},
        )

    def boot(self, host, nonce, last, bad=0):
        self.line(host, f"BOOT vm=web1 boot={nonce} last={last} bad={bad}")

    def stamps(self, host, nonce, first, last, every=0.025, **states):
        """Advances time; with samples of these states (default: this host's QEMU sleeps) twice a
        second."""
        sampled = -SECOND
        for number in range(first, last + 1):
            self.wait(every)
            if self.now - sampled > SECOND // 2:
                self.sample(**(states or {host: "S"}))
                sampled = self.now
            self.line(host, f"STAMP boot={nonce} n={number}")

    def idle(self, seconds, **states):
        for _ in range(int(seconds * 2)):
            self.wait(0.5)
            self.sample(**states)

    def cut(self, host="a"):
        self.wait(0.01)
        self.add("mark", name="cut", host=host)


def until_cut(stamps=80):
    story = Story()
    story.sample(a="R")
    story.boot("a", BOOT_A, 0)
    story.stamps("a", BOOT_A, 1, stamps)
    story.cut()
    return story


def failover(last=80, bad=0, silent=False, after=30):
    story = until_cut()
    if silent:
        story.wait(9)
    else:
        story.idle(6)
        story.idle(3, b="R")
    story.boot("b", BOOT_B, last, bad)
    story.stamps("b", BOOT_B, last + 1, last + after)
    story.idle(1, b="S")
    return story


def old_host_frozen():
    story = until_cut()
    story.idle(1, a="S")
    story.idle(5, a="T")
    story.idle(3, a="T", b="R")
    story.boot("b", BOOT_B, 80)
    story.stamps("b", BOOT_B, 81, 110, a="T", b="S")
    return story


def late_line_before_the_boot():
    story = until_cut()
    story.line("a", f"STAMP boot={BOOT_A} n=81")  # was in the socket when the power went
    story.idle(9)
    story.boot("b", BOOT_B, 81)
    story.stamps("b", BOOT_B, 82, 110)
    return story


def goes_on_alone(pause=1.5):
    story = until_cut()
    story.idle(pause, a="S")
    story.stamps("a", BOOT_A, 81, 150)
    return story


def interleaved():
    story = failover()
    story.line("a", f"STAMP boot={BOOT_A} n=81")
    story.stamps("b", BOOT_B, 111, 120)
    return story


def two_qemus():
    story = until_cut()
    story.idle(1, a="S")
    story.sample(a="S", b="R")  # the old one was stopped only after this
    story.idle(8, a="T", b="R")
    story.boot("b", BOOT_B, 80)
    story.stamps("b", BOOT_B, 81, 110, a="T", b="S")
    return story


def cut_long_after_the_last_stamp():
    story = Story()
    story.boot("a", BOOT_A, 0)
    story.stamps("a", BOOT_A, 1, 80)
    story.idle(3, a="S")
    story.cut()
    story.idle(9)
    story.boot("b", BOOT_B, 80)
    story.stamps("b", BOOT_B, 81, 110)
    return story


def too_few_stamps():
    story = until_cut(49)
    story.idle(9)
    story.boot("b", BOOT_B, 49)
    story.stamps("b", BOOT_B, 50, 80)
    return story


def guest_saw_an_error():
    story = failover()
    story.line("b", f"IOERROR boot={BOOT_B} n=111 errno=5")
    return story


def line_missing():
    story = failover()
    story.records = [each for each in story.records if not each.get("text", "").endswith(" n=40")]
    return story


def never_announced():
    story = failover()
    story.records = [
        each
        for each in story.records
        if not each.get("text", "").startswith(f"BOOT vm=web1 boot={BOOT_A}")
    ]
    return story


def lost_at_the_second_failover():
    story = failover()
    story.cut("b")
    story.idle(9)
    story.boot("a", "c" * 16, 100)
    story.stamps("a", "c" * 16, 101, 130)
    return story


def old_boot_found_by_a_later_one():
    """Two failovers; the second boot is whole but the third has lost stamps that the first boot
    wrote."""
    story = failover(after=60)
    story.cut("b")
    story.idle(9)
    story.boot("a", "c" * 16, 70)
    story.stamps("a", "c" * 16, 71, 100)
    return story


def no_cut():
    story = failover()
    story.records = [each for each in story.records if each["kind"] != "mark"]
    return story


def never_booted():
    story = until_cut()
    story.idle(60)
    return story


def booted_and_silent():
    story = until_cut()
    story.idle(9)
    story.boot("b", BOOT_B, 80)
    story.idle(30, b="S")
    return story


def alone_but_frozen():
    story = until_cut()
    story.idle(60, a="S")
    return story


# name → (story, verdict, part of the reason, boot expected after the cut)
GOOD = {
    "failover": (failover(), True),
    "one-more-than-reported": (failover(last=81), True),
    "old-host-frozen": (old_host_frozen(), True),
    "late-line-before-the-boot": (late_line_before_the_boot(), True),
    "goes-on-alone": (goes_on_alone(), False),
}
BAD = {
    "last-stamp-lost": (failover(last=79), "fail", "1 acknowledged stamps were lost", True),
    "all-stamps-lost": (failover(last=0), "fail", "80 acknowledged stamps were lost", True),
    "hole": (failover(bad=1), "fail", "1 acknowledged stamps were lost", True),
    "lost-at-the-second-failover": (
        lost_at_the_second_failover(),
        "fail",
        "10 acknowledged stamps were lost",
        True,
    ),
    "old-stamps-lost-later": (
        old_boot_found_by_a_later_one(),
        "fail",
        "70 acknowledged stamps were lost",
        True,
    ),
    "interleaved": (interleaved(), "fail", "came after boot", True),
    "two-qemus": (two_qemus(), "fail", "two QEMUs could run", True),
    "guest-saw-an-error": (guest_saw_an_error(), "fail", "I/O errors", True),
    "too-few-stamps": (too_few_stamps(), "inconclusive", "only 49 stamps", True),
    "cut-long-after-the-last-stamp": (
        cut_long_after_the_last_stamp(),
        "inconclusive",
        "before the cut, 1 s is the limit",
        True,
    ),
    "line-missing": (line_missing(), "inconclusive", "where 40 was due", True),
    "never-announced": (never_announced(), "inconclusive", "never announced themselves", True),
    "sampler-silent": (failover(silent=True), "inconclusive", "no sample of the processes", True),
    "no-cut": (no_cut(), "inconclusive", "no cut was made", True),
    "never-booted": (never_booted(), "inconclusive", "did not boot again", True),
    "booted-and-silent": (
        booted_and_silent(),
        "inconclusive",
        "no stamp was written after the cut",
        True,
    ),
    "alone-but-frozen": (
        alone_but_frozen(),
        "inconclusive",
        "no stamp was written after the cut",
        False,
    ),
}


def write(folder, name, story, verdict, reason, expect_boot):
    about = {
        "t": 0,
        "kind": "about",
        "vm": "web1",
        "expect_boot": expect_boot,
        "verdict": verdict,
        "reason": reason,
    }
    text = "".join(json.dumps(record) + "\n" for record in [about, *story.records])
    (HERE / folder / f"{name}.jsonl").write_text(text)


if __name__ == "__main__":
    for name, (story, expect_boot) in GOOD.items():
        write("good", name, story, "pass", None, expect_boot)
    for name, (story, verdict, reason, expect_boot) in BAD.items():
        write("bad", name, story, verdict, reason, expect_boot)
