#!/usr/bin/python3
"""The job of the demo is: to pull the plug of a host under a running, protected VM and to let the
observer judge what was lost.

Two lab hosts come up, a running VM is protected, host A loses its power at a random moment, host B
takes over, host A returns and is brought in sync again. Exit status 0 only when the verdict is
"pass": nothing acknowledged was lost, the VM never ran twice, the guest saw no I/O error, both
replicas ended byte for byte equal, and the observer had enough evidence.

  --json   one object on standard output at the end (progress goes to standard error)
  --keep   leave the lab up (./dev lab down --name NAME removes it)
  --seed   of the random moment, to repeat one
  --honest-disk   the hosts' disks lose nothing at a power cut, flushed or not
"""

import argparse
import contextlib
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from lab import vms  # noqa: E402
from lab.disk import same_content  # noqa: E402
from lab.domain import disk_path  # noqa: E402
from lab.lab import Lab  # noqa: E402
from lab.procs import LabError, boottime_ns, wait_until  # noqa: E402
from lab.product import Product  # noqa: E402
from lab.verdict import judge  # noqa: E402

VM = "web1"
STAMPS_BEFORE = 100
STAMPS_AFTER = 40
RANDOM_MOMENT_S = (1.0, 5.0)
TAKEOVER_S = 120
OFF_S = 60
EVIDENCE = pathlib.Path(__file__).resolve().parents[2] / "build" / "reports" / "demo"
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Progress:
    """One line a step: what happens, a moving detail while it does on a terminal, the time it took
    at the end."""

    def __init__(self, out):
        self._out = out
        self._live = out.isatty()
        self._began = time.monotonic()
        self._step = ("", 0.0)
        self._turn = 0

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"

    @contextlib.contextmanager
    def step(self, text: str):
        self._step = (text, time.monotonic())
        self.detail("")
        yield
        took = time.monotonic() - self._step[1]
        self._print(f" {self._clock()}  ✔ {text}  ({took:.1f} s)")

    def detail(self, text: str) -> None:
        if self._live:
            self._turn += 1
            mark = SPINNER[self._turn % len(SPINNER)]
            self._out.write(f"\r\033[K {self._clock()}  {mark} {self._step[0]} {text}")
            self._out.flush()

    def say(self, text: str) -> None:
        self._print(f" {self._clock()}    {text}")

    def title(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        start = "\r\033[K" if self._live else ""
        self._out.write(f"{start}{text}\n")
        self._out.flush()


class Demo:
    def __init__(self, lab: Lab, progress: Progress, rng: random.Random):
        self.lab = lab
        self.progress = progress
        self.rng = rng
        self.product: Product
        self.cut_ns = 0
        self.returned_ns = 0

    def play(self, replaced_programs: dict[str, str]) -> dict:
        progress, lab = self.progress, self.lab
        with progress.step("the guest: Debian's kernel, busybox, a program that stamps its disk"):
            accelerator = vms.guest_description(VM)["accelerator"]
        with progress.step("two hosts with libvirtd, havmd on both, a witness"):
            self.product = Product(lab, replaced=replaced_programs)
            lab.boot_hosts()
            self.product.start()
        with progress.step(f"VM '{VM}' runs on host a, unprotected ({accelerator})"):
            vms.define_vm(lab, lab.a, VM)
            lab.a.virsh("start", VM)
            self._wait_stamps(10, 0)
        with progress.step(f"havm protect {VM} --peer b --restart"):
            self.product.havm(lab.a, "protect", VM, "--peer", "b", "--restart")
        self._wait_in_sync(lab.a, "both replicas in sync")
        with progress.step(f"{STAMPS_BEFORE} stamps acknowledged while in sync"):
            self._wait_stamps(STAMPS_BEFORE, boottime_ns())
        self._pull_the_plug()
        self._take_over()
        self._return()
        return self._judge(accelerator)

    def _wait_stamps(
        self, count: int, since_ns: int, host: str | None = None, deadline_s: float = vms.BOOT_S
    ) -> None:
        def enough() -> bool:
            have = vms.stamps_since(self.lab, VM, since_ns, host)
            self.progress.detail(f"{have}/{count}")
            return have >= count

        wait_until(f"{count} stamps of {VM}", enough, deadline_s, 0.1)

    def _wait_in_sync(self, host, what: str, deadline_s: float = 300) -> None:
        with self.progress.step(what):
            wait_until(what, lambda: self._in_sync(host), deadline_s, 0.3)

    def _in_sync(self, host) -> bool:
        sync = self.product.dominfo(host, VM)["sync"]
        done, total = sync.get("done_bytes"), sync.get("total_bytes")
        self.progress.detail(
            f"{sync['state']} {done * 100 // total} %"
            if done is not None and total
            else sync["state"]
        )
        return sync["state"] == "in-sync"

    def _pull_the_plug(self) -> None:
        moment = self.rng.uniform(*RANDOM_MOMENT_S)
        with self.progress.step("a random moment"):
            time.sleep(moment)  # the random moment itself; nothing is waited for
        self.cut_ns = self.lab.power_cut(self.lab.a)
        self.progress.title(
            "            ⚡ host a has lost its power: links down, every process killed at once, "
            "what its disk had not flushed lost"
        )

    def _take_over(self) -> None:
        shown: set[int] = set()

        def running_on_b() -> bool:
            for event in self._events_since_cut():
                if event["id"] not in shown:
                    shown.add(event["id"])
                    self.progress.say(
                        f"+{(event['time_ns'] - self.cut_ns) / 1e9:5.2f} s  "
                        f"{event['kind']}: {event['text']}"
                    )
            self.progress.detail("")
            return any(event["kind"] == "vm-started" for event in self._events_since_cut())

        with self.progress.step("host b takes over"):
            wait_until(f"{VM} to be started on host b", running_on_b, TAKEOVER_S, 0.1)
        with self.progress.step(f"the guest is up on host b and stamps on ({STAMPS_AFTER} stamps)"):
            self._wait_stamps(STAMPS_AFTER, self.cut_ns, "b")

    def _return(self) -> None:
        with self.progress.step("host a returns"):
            self.returned_ns = boottime_ns()
            self.product.boot(self.lab.a)
        self._wait_in_sync(self.lab.b, "host a is a replica again, in sync")
        with self.progress.step(f"the guest went on meanwhile ({STAMPS_AFTER} more stamps)"):
            self._wait_stamps(STAMPS_AFTER, boottime_ns(), "b")
        with self.progress.step("shut down, to compare the replicas byte for byte"):
            self.product.havm(self.lab.b, "shutdown", VM)
            wait_until(
                f"{VM} to be off",
                lambda: self.product.dominfo(self.lab.b, VM)["state"] == "shut off",
                OFF_S,
                0.2,
            )

    def _events_since_cut(self) -> list[dict]:
        return [
            event for event in self.product.events(self.lab.b, VM) if event["time_ns"] > self.cut_ns
        ]

    def _judge(self, accelerator: str) -> dict:
        records = self.lab.history()
        verdict = judge(records, VM, cut_ns=self.cut_ns)
        images = [host.path(disk_path(VM)) for host in self.lab.hosts.values()]
        verdict["replicas_identical"] = same_content(*images)
        if not verdict["replicas_identical"]:
            verdict["verdict"] = "fail"
            verdict["reasons"].append(f"the replicas differ: {images[0]} and {images[1]}")
        return {**verdict, **self._phases(), "accelerator": accelerator}

    def _phases(self) -> dict:
        """What havm did when, by its own events on host b; hosts of a lab share the clock. The
        verdict does not use them."""
        at: dict[str, int] = {}
        for event in self._events_since_cut():
            at.setdefault(event["kind"], event["time_ns"])
        story = vms.story(self.lab, VM)
        first_stamp = next(
            (stamp.t for stamp in story.stamps if stamp.host == "b" and stamp.t > self.cut_ns), None
        )
        grown = next(
            (
                event["time_ns"]
                for event in self._events_since_cut()
                if event["kind"] == "grown" and event["time_ns"] > self.returned_ns
            ),
            None,
        )

        def seconds(start: int | None, end: int | None) -> float | None:
            return None if start is None or end is None else round((end - start) / 1e9, 3)

        won, over = at.get("cas-won"), at.get("lease-wait-over")
        return {
            "detect_s": seconds(self.cut_ns, at.get("partner-lost")),
            "decide_s": seconds(at.get("partner-lost"), won),
            "lease_wait_s": seconds(won, over),
            "start_s": seconds(over, at.get("vm-started")),
            "guest_up_s": seconds(at.get("vm-started"), first_stamp),
            "resync_s": seconds(self.returned_ns, grown),
            "started_s": seconds(self.cut_ns, at.get("vm-started")),
        }


def replaced(options: list[str]) -> dict[str, str]:
    """["havm-repl=havm-repl-broken-ack"] → {"havm-repl": "havm-repl-broken-ack"}"""
    return dict(option.split("=", 1) for option in options)


def tell(progress: Progress, result: dict) -> None:
    progress.title("")
    for key, text in (
        ("detect_s", "the partner was noticed to be lost after"),
        ("decide_s", "the register was swapped in"),
        ("lease_wait_s", "the old owner's lease was waited for"),
        ("start_s", "libvirt started the VM in"),
        ("guest_up_s", "the guest's kernel booted and stamped in"),
        ("started_s", "power cut to VM started on b"),
        ("resync_s", "host a's return to in sync"),
    ):
        progress.title(
            f"   {text:<44} {'unknown' if result[key] is None else f'{result[key]:.2f} s'}"
        )
    progress.title(
        f"   {'acknowledged stamps lost':<44} "
        f"{result['acked_lost']} of {result['acked_before_cut']}"
    )
    progress.title(f"   {'ran twice':<44} {'YES' if result['ran_twice'] else 'no'}")
    progress.title(
        f"   {'replicas identical at the end':<44} "
        f"{'yes' if result['replicas_identical'] else 'NO'}"
    )
    for reason in result["reasons"]:
        progress.title(f"   ! {reason}")
    progress.title(f"   verdict: {result['verdict']}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="dev demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--honest-disk", action="store_true")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="PROGRAM=FILE",
        help="play with another build of one program, for instance a deliberately broken one",
    )
    options = parser.parse_args()
    progress = Progress(sys.stderr if options.json else sys.stdout)
    progress.title(f"havm demo: pull the plug (--seed {options.seed})")
    Lab.cleanup_stale()
    lab = Lab(f"demo-{random.SystemRandom().randrange(1 << 24):06x}")
    try:
        lab.up(keep=options.keep, boot=False, honest_disk=options.honest_disk)
        result = {
            **Demo(lab, progress, random.Random(options.seed)).play(replaced(options.replace)),
            "seed": options.seed,
        }
        tell(progress, result)
    except BaseException:
        lab.save_evidence(EVIDENCE)
        progress.title(f"the history and all logs are in {EVIDENCE}")
        raise
    finally:
        if options.keep:
            progress.title(
                f"lab '{lab.name}' is kept in {lab.dir}; "
                f"remove it with: ./dev lab down --name {lab.name}"
            )
        else:
            lab.down()
    if options.json:
        print(json.dumps(result))
    return 0 if result["verdict"] == "pass" else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the lab was removed")
