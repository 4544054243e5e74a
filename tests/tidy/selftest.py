#!/usr/bin/python3
"""The job of selftest is: show that every tidy check rejects its bad sample, finding by finding, and
nothing else in it. A check that finds nothing because it looks at nothing would be worse than none.

bad/<check>/ is a small tree; bad/<check>/expected lists `file:line: start of the finding`.
"""

import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
BAD = HERE / "bad"


def run(check: str, *arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-B", HERE / f"{check}.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def samples(check: str) -> list[str]:
    """What is wrong with the answer to the bad tree."""
    done = run(check, BAD / check)
    expected = (BAD / check / "expected").read_text(encoding="utf-8").splitlines()
    found = [line for line in done.stdout.splitlines() if line]
    wrong = [] if done.returncode == 1 else [f"{check}: exit status {done.returncode}, not 1"]
    if done.stderr.startswith("Traceback"):
        return [f"{check}: {done.stderr}"]
    for line in expected:
        match = next((each for each in found if each.startswith(line)), None)
        if match is None:
            wrong.append(f"{check}: did not find: {line}")
        else:
            found.remove(match)
    return wrong + [f"{check}: found what is not wrong: {line}" for line in found]


def empty_tree(check: str, folder: pathlib.Path) -> list[str]:
    done = run(check, folder)
    return [] if done.returncode == 1 else [f"{check}: an empty tree passes"]


def library(folder: pathlib.Path, source: str) -> pathlib.Path:
    compiler = os.environ.get("CXX", "c++")
    result = folder / f"lib{source}.a"
    compiled = folder / f"{source}.o"
    subprocess.run(
        [compiler, "-std=c++20", "-c", BAD / "symbols" / f"{source}.cpp", "-o", compiled], check=True
    )
    subprocess.run(["ar", "rcs", result, compiled], check=True)
    return result


def symbols(folder: pathlib.Path) -> list[str]:
    wrong = []
    impure = run("symbols", HERE, library(folder, "impure_core"))
    if impure.returncode != 1:
        wrong.append(f"symbols: an impure library passes: {impure.stdout}{impure.stderr}")
    for what in ("a clock", "chance", "a stream", "a file", "the network", "a thread"):
        if f"uses {what}" not in impure.stdout:
            wrong.append(f"symbols: did not see {what} in the impure library")
    if "has the switch" not in impure.stdout:
        wrong.append("symbols: did not see the switch of a test build")
    pure = run("symbols", HERE, library(folder, "pure_core"))
    if pure.returncode != 0:
        wrong.append(f"symbols: a pure library is rejected: {pure.stdout}{pure.stderr}")
    if run("symbols", HERE, folder / "libmissing.a").returncode != 1:
        wrong.append("symbols: a missing library passes")
    return wrong


def main() -> None:
    wrong = []
    checks = ("includes", "sizes", "coroutines", "words")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for check in checks:
            wrong += samples(check) + empty_tree(check, folder)
        wrong += symbols(folder)
    for line in wrong:
        print(line)
    if wrong:
        sys.exit(f"selftest: {len(wrong)} of the checks' promises are broken")
    print(f"selftest: {', '.join(checks)} and symbols reject what they must")


if __name__ == "__main__":
    main()
