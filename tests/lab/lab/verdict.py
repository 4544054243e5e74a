"""The job of the verdict is: to decide from the observer's history alone whether data was lost or a
VM ran twice.

Pure functions over a list of records (history.py). havm is not asked. A verdict is "pass" only when
there was enough evidence; "inconclusive" is a failure of the test. What counts:
  acked_lost  stamps reported on serial before a boot that this boot did not find on the disk, plus
              holes and bad checksums
  ran_twice   a stamp of one boot after a later boot had begun, or two QEMUs of the VM both not
              stopped in one sample
  evidence    ≥ 50 stamps reported before the cut, the last one ≤ 1 s before it; no stamp missing
              from a boot's sequence; the sampler never silent for more than 2 s
"""

import dataclasses
import re

ENOUGH_STAMPS = 50
LAST_STAMP_NS = 1_000_000_000
SAMPLER_SILENCE_NS = 2_000_000_000

BOOT = re.compile(r"^BOOT vm=(\S+) boot=([0-9a-f]{16}) last=(\d+) bad=(\d+)$")
STAMP = re.compile(r"^STAMP boot=([0-9a-f]{16}) n=(\d+)$")
IOERROR = re.compile(r"^IOERROR boot=([0-9a-f]{16}) n=(\d+) errno=(-?\d+)$")


@dataclasses.dataclass
class Boot:
    t: int
    host: str
    nonce: str
    last: int
    bad: int


@dataclasses.dataclass
class Stamp:
    t: int
    host: str
    nonce: str
    number: int


@dataclasses.dataclass
class GuestStory:
    """What one VM said, in order of time."""

    boots: list[Boot]
    stamps: list[Stamp]
    io_errors: int


def guest_story(records: list[dict], vm: str) -> GuestStory:
    story = GuestStory([], [], 0)
    for record in sorted(records, key=lambda each: each["t"]):
        if record["kind"] != "line" or record["vm"] != vm:
            continue
        if match := STAMP.match(record["text"]):
            story.stamps.append(Stamp(record["t"], record["host"], match[1], int(match[2])))
        elif match := BOOT.match(record["text"]):
            story.boots.append(
                Boot(record["t"], record["host"], match[2], int(match[3]), int(match[4]))
            )
        elif IOERROR.match(record["text"]):
            story.io_errors += 1
    return story


def acked_lost(story: GuestStory) -> int:
    """The worst count over all boots: reported by an earlier boot, not there (or not intact) at
    this one."""
    began = {boot.nonce: boot.t for boot in story.boots}
    worst = 0
    for boot in story.boots:
        earlier = [
            stamp.number
            for stamp in story.stamps
            if stamp.nonce != boot.nonce
            and stamp.t <= boot.t
            and began.get(stamp.nonce, 0) <= boot.t
        ]
        worst = max(worst, max(0, max(earlier, default=0) - boot.last) + boot.bad)
    return worst


def interleaved(story: GuestStory) -> str | None:
    """A stamp of one boot reported after another boot had begun later."""
    began = {boot.nonce: boot.t for boot in story.boots}
    for stamp in story.stamps:
        for boot in story.boots:
            if boot.nonce != stamp.nonce and stamp.t > boot.t > began.get(stamp.nonce, 0):
                return (
                    f"stamp {stamp.number} of boot {stamp.nonce} ({stamp.host}) "
                    f"came after boot {boot.nonce} "
                    f"({boot.host}) had begun"
                )
    return None


def doubled(records: list[dict], vm: str) -> str | None:
    """Two QEMUs of the VM in one sample, both not stopped."""
    for record in records:
        if record["kind"] != "sample":
            continue
        running = [qemu for qemu in record["vms"].get(vm, []) if qemu["state"] not in "TtZX"]
        if len(running) > 1:
            where = ", ".join(
                f"pid {qemu['pid']} on {qemu['host']} ({qemu['state']})" for qemu in running
            )
            return f"at {record['t']} two QEMUs could run: {where}"
    return None


def unheard(story: GuestStory) -> str | None:
    """A gap in the sequence of one boot: the observer missed lines, so it cannot vouch for what was
    acknowledged."""
    for boot in story.boots:
        expected = boot.last + 1
        for stamp in story.stamps:
            if stamp.nonce != boot.nonce:
                continue
            if stamp.number != expected:
                return f"boot {boot.nonce} reported stamp {stamp.number} where {expected} was due"
            expected += 1
    strangers = {stamp.nonce for stamp in story.stamps} - {boot.nonce for boot in story.boots}
    return (
        f"stamps of boots that never announced themselves: {sorted(strangers)}"
        if strangers
        else None
    )


def sampler_silence(records: list[dict], since: int, until: int) -> str | None:
    times = (
        [since]
        + [r["t"] for r in records if r["kind"] == "sample" and since < r["t"] < until]
        + [until]
    )
    worst = max(later - earlier for earlier, later in zip(times, times[1:]))
    return (
        f"no sample of the processes for {worst / 1e9:.1f} s"
        if worst > SAMPLER_SILENCE_NS
        else None
    )


def last_cut(records: list[dict]) -> int | None:
    cuts = [
        record["t"] for record in records if record["kind"] == "mark" and record["name"] == "cut"
    ]
    return max(cuts, default=None)


def judge(
    records: list[dict], vm: str, *, cut_ns: int | None = None, expect_boot: bool = True
) -> dict:
    """The verdict on one fault at `cut_ns` (default: the last "cut" mark). `expect_boot`: the VM
    must boot again after it; otherwise it must go on stamping without a boot or resume by
    itself."""
    records = sorted(records, key=lambda each: each["t"])
    cut_ns = last_cut(records) if cut_ns is None else cut_ns
    story = guest_story(records, vm)
    lost, failures, doubts = acked_lost(story), [], []
    if lost:
        failures.append(f"{lost} acknowledged stamps were lost")
    twice = interleaved(story) or doubled(records, vm)
    if twice:
        failures.append(f"the VM ran twice: {twice}")
    if story.io_errors:
        failures.append(f"the guest saw {story.io_errors} I/O errors")
    if missing := unheard(story):
        doubts.append(missing)
    before, after = [], []
    if cut_ns is None:
        doubts.append("no cut was made")
    else:
        before = [stamp for stamp in story.stamps if stamp.t <= cut_ns]
        after = [stamp for stamp in story.stamps if stamp.t > cut_ns]
        doubts += _evidence_around(records, story, cut_ns, before, after, expect_boot)
    return {
        "verdict": "fail" if failures else "inconclusive" if doubts else "pass",
        "acked_lost": lost,
        "ran_twice": twice is not None,
        "guest_io_errors": story.io_errors,
        "acked_before_cut": len(before),
        "last_ack_age_s": round((cut_ns - before[-1].t) / 1e9, 3) if before else None,
        "stamps_after_cut": len(after),
        "boots": len(story.boots),
        "reasons": failures + doubts,
    }


def _evidence_around(records, story, cut_ns, before, after, expect_boot) -> list[str]:
    doubts = []
    if len(before) < ENOUGH_STAMPS:
        doubts.append(
            f"only {len(before)} stamps were acknowledged before the cut, "
            f"{ENOUGH_STAMPS} are needed"
        )
    elif cut_ns - before[-1].t > LAST_STAMP_NS:
        doubts.append(
            f"the last stamp was {(cut_ns - before[-1].t) / 1e9:.1f} s before the cut, "
            f"1 s is the limit"
        )
    booted = [boot for boot in story.boots if boot.t > cut_ns]
    if expect_boot and not booted:
        doubts.append("the VM did not boot again after the cut")
    goal = {boot.nonce for boot in booted} if expect_boot else {stamp.nonce for stamp in after}
    if not any(stamp.nonce in goal for stamp in after):
        doubts.append("no stamp was written after the cut")
    end = booted[0].t if booted else after[-1].t if after else cut_ns
    if silence := sampler_silence(records, cut_ns - SAMPLER_SILENCE_NS // 2, end):
        doubts.append(silence)
    return doubts
