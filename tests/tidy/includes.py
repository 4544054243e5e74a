#!/usr/bin/python3
"""The job of includes is: keep the dependency directions of docs/ARCHITECTURE.md, read from the
#include lines.

  agent → {vmrepl, hypervisor} → vmrepl/base; vmrepl and hypervisor never see each other nor agent.
  agent/cli sees agent/control, agent/pki, agent/policy and vmrepl/base only.
  Pure files (`*_core*`, agent/failover, and what is linked into the core libraries) reach nothing
  that has a clock, does I/O, logs or runs threads, neither themselves nor through another header.
"""

import pathlib
import re

from lib import tree

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.MULTILINE)

# folder → what it may include beside itself; the first entry that fits counts
ALLOWED = [
    ("vmrepl/base", []),
    ("vmrepl", ["vmrepl"]),
    ("hypervisor", ["hypervisor", "vmrepl/base"]),
    ("agent/cli", ["agent/control", "agent/pki", "agent/policy", "vmrepl/base"]),
    # the rule how a certificate names its node is the engine's, who checks it
    ("agent/pki", ["vmrepl/base", "vmrepl/transport/node_identity.hpp"]),
    ("agent/policy", ["vmrepl/base"]),
    ("agent/control", ["vmrepl/base"]),
    ("agent/guard", ["vmrepl/base"]),
    ("agent/liveness", ["vmrepl/base"]),
    # the register's type is shared with the witness that keeps it
    ("agent/failover", ["agent/witness/witness_types.hpp", "vmrepl/base"]),
    ("agent", ["agent", "vmrepl", "hypervisor"]),
    ("tests", ["tests", "agent", "vmrepl", "hypervisor"]),
]

PURE_FOLDERS = ("agent/failover", "vmrepl/bitmap")
# Pure without the word in their names: they are sources of a core library.
PURE_FILES = {
    "vmrepl/session/hello_verdict",
    "vmrepl/session/replica_record",
    "vmrepl/session/sync_verdict",
    "vmrepl/session/session_types",
    "vmrepl/session/primary_action",
    "vmrepl/session/unflushed_ranges",
    "vmrepl/nbd/nbd_reply_codec",
    "vmrepl/nbd/nbd_protocol",
    "vmrepl/nbd/nbd_bytes",
}
# An interface that drivers implement, kept beside the core that it serves; the core itself must not
# include it, which the rule below makes sure of.
NOT_PURE = {"agent/failover/arbiter.hpp"}

IMPURE_STANDARD = {
    "atomic", "condition_variable", "csignal", "cstdio", "ctime", "filesystem", "fstream", "future",
    "iostream", "mutex", "random", "shared_mutex", "semaphore", "stop_token", "thread",
}  # fmt: skip
# Values, not machinery: what Result is made of.
HARMLESS_THIRD_PARTY = ("boost/outcome",)

BANNED_TEXT = [
    (re.compile(r"::now\s*\("), "reads a clock", "take the time from the event or an argument"),
    (re.compile(r"\bco_(await|return|yield)\b"), "is a coroutine", "return an action instead"),
    (re.compile(r"\bthrow\b"), "throws", "assert a bug, return a Result for what may happen"),
    (re.compile(r"\bgetenv\s*\("), "reads the environment", "take it as an argument"),
]


def includes_of(path: pathlib.Path):
    """(line, "<" or '"', name)"""
    text = path.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        yield tree.line_of(text, match.start(1)), match[1], match[2]


def inside(name: str, folder: str) -> bool:
    return name == folder or name.startswith(folder + "/")


def allowed_for(name: str):
    for folder, others in ALLOWED:
        if inside(name, folder):
            return folder, [folder, *others]
    return None, []


def is_pure(name: str) -> bool:
    if name in NOT_PURE or name.startswith("tests/"):
        return False
    stem = name.rsplit(".", 1)[0]
    base = stem.rsplit("/", 1)[-1]
    core = re.search(r"_core(_|$)", base) is not None
    return core or stem in PURE_FILES or any(inside(name, folder) for folder in PURE_FOLDERS)


def impurity(kind: str, name: str) -> str | None:
    if kind == '"':
        return None
    if name in IMPURE_STANDARD:
        return name
    third_party = "/" in name or name.endswith(".h")
    return name if third_party and not name.startswith(HARMLESS_THIRD_PARTY) else None


def check_directions(root, path, name, findings) -> None:
    folder, allowed = allowed_for(name)
    for line, kind, included in includes_of(path):
        if kind == "<":
            if included.split("/")[0] in ("agent", "vmrepl", "hypervisor", "tests"):
                findings.add(path, line, f"<{included}> is ours", "write it in quotes")
            continue
        if included.startswith(".") or "/" not in included:
            findings.add(path, line, f'"{included}" is relative', "write the path from the root")
            continue
        if not any(inside(included, each) for each in allowed):
            findings.add(
                path, line, f"{folder} must not see {included}",
                "it may see " + (", ".join(allowed[1:]) or "nothing else")
                + "; turn the dependency round or move the shared part down to vmrepl/base",
            )  # fmt: skip


def check_pure(root, path, name, findings) -> None:
    text = tree.without_noise(path.read_text(encoding="utf-8"))
    for pattern, what, remedy in BANNED_TEXT:
        for match in pattern.finditer(text):
            findings.add(path, tree.line_of(text, match.start()), f"a pure file {what}", remedy)
    for line, kind, included in includes_of(path):
        for chain in impure_chains(root, kind, included, ()):
            findings.add(
                path, line, "a pure file reaches " + " → ".join(chain),
                "decide here, do it in the driver; split the header if only its types are needed",
            )  # fmt: skip


def impure_chains(root, kind, name, above):
    """Every way from an include to something impure; each own header is entered once a way."""
    bad = impurity(kind, name)
    if bad:
        yield (*above, f"<{bad}>")
    path = root / name
    if kind == "<" or name in above or not path.is_file():
        return
    for _, inner_kind, inner in includes_of(path):
        yield from impure_chains(root, inner_kind, inner, (*above, name))


def main() -> None:
    root = tree.root_from_arguments()
    findings = tree.Findings(root)
    paths = tree.cpp_files(root)
    for path in paths:
        name = path.relative_to(root).as_posix()
        check_directions(root, path, name, findings)
        if is_pure(name):
            check_pure(root, path, name, findings)
    findings.exit("includes", len(paths))


if __name__ == "__main__":
    main()
