#!/usr/bin/python3
"""The job of symbols is: see in the compiled core libraries that they are pure, whatever the
#includes say. No clock, no randomness, no system call for I/O, no thread, no Asio, no log. Nor the
switch by which a test build breaks a rule (vmrepl/base/rules.hpp).

  symbols.py ROOT                   the libraries of the most complete build below ROOT/build
  symbols.py ROOT LIBRARY…          these files; one that is missing is a finding

The sanitizers add symbols of their own; none of them looks like one of those forbidden here, so a
sanitized build is judged as any other. Exceptions are not looked for: std::get of a variant brings one
along; includes.py refuses the word itself.
"""

import pathlib
import re
import subprocess
import sys

from lib import tree

CORES = (
    "havm_failover_core", "havm_liveness_core", "havm_guard_core", "havm_witness_core",
    "havm_session_core", "havm_resync_core", "havm_resync_queue_core", "havm_bitmap_core",
    "havm_nbd_core",
)  # fmt: skip

FORBIDDEN = [
    (re.compile(r"(clock|Clock)(::\w+)*::now\("), "a clock"),
    (re.compile(r"^(clock_gettime|gettimeofday|time|times|clock|timespec_get)$"), "a clock"),
    (re.compile(r"random_device|^(rand|random|srand|srandom|getrandom|arc4random\w*)$"), "chance"),
    (re.compile(r"boost::asio|boost::beast"), "Boost.Asio"),
    (re.compile(r"spdlog|fmt::v\d+::(v?print)"), "a log"),
    (re.compile(r"^std::(cout|cerr|clog|cin)\b|basic_[io]?fstream|basic_filebuf"), "a stream"),
    (re.compile(r"^(v?f?printf|f?puts|f?putc|putchar|perror|fopen(64)?|fwrite|fread|fflush)$"),
     "a stream"),
    (re.compile(r"^(open|openat|read|write|p(read|write)v?|readv|writev|close|f?stat|lseek|"
                r"f?truncate|fsync|fdatasync|ioctl|fcntl|mmap|unlink|rename)(64)?$"), "a file"),
    (re.compile(r"^(socket|connect|bind|listen|accept4?|send(to|msg)?|recv(from|msg)?|poll|ppoll|"
                r"select|epoll_\w+|getaddrinfo|io_uring_\w+)$"), "the network"),
    (re.compile(r"^(getenv|secure_getenv|system|fork|v?exec\w+|posix_spawnp?|kill|syscall)$"),
     "the process"),
    (re.compile(r"std::thread|std::this_thread|condition_variable|^pthread_(create|mutex\w*|cond\w*)$|"
                r"^(nanosleep|usleep|sleep)$"), "a thread"),
    (re.compile(r"^(sqlite3|vir[A-Z]|nlohmann)"), "a library of the drivers"),
]  # fmt: skip


SWITCH = re.compile(r"\bhavm::broken_rule$")


def has_switch(library: pathlib.Path) -> bool:
    run = subprocess.run(["nm", "-C", library], capture_output=True, text=True, check=False)
    return any(SWITCH.search(line) for line in run.stdout.splitlines())


def undefined_symbols(library: pathlib.Path) -> list[tuple[str, str]]:
    """(object file, symbol) of everything that the library takes from elsewhere."""
    run = subprocess.run(["nm", "-uC", library], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"symbols: nm cannot read {library}: {run.stderr.strip()}")
    member, found = library.name, []
    for line in run.stdout.splitlines():
        if line.endswith(":"):
            member = line[:-1]
        elif match := re.match(r"\s+[Uw] (.*)$", line):
            found.append((member, match[1].split("@")[0]))
    return found


def libraries_of_newest_build(root: pathlib.Path) -> list[pathlib.Path]:
    builds = {}
    for core in CORES:
        for library in (root / "build").glob(f"*/**/lib{core}.a"):
            builds.setdefault(library.relative_to(root / "build").parts[0], []).append(library)
    if not builds:
        return []
    return max(
        builds.values(), key=lambda each: (len(each), max(path.stat().st_mtime for path in each))
    )


def check(library: pathlib.Path) -> int:
    bad = 0
    if has_switch(library):
        bad += 1
        print(f"{library}: has the switch of a test build: it must not be built with HAVM_MUTATIONS")
    for member, symbol in undefined_symbols(library):
        for pattern, what in FORBIDDEN:
            if pattern.search(symbol):
                bad += 1
                print(
                    f"{library}({member}): uses {what}, {symbol}: a core decides only; take it as "
                    "an argument or return an action for the driver"
                )
    return bad


def main() -> None:
    root = tree.root_from_arguments()
    named = [pathlib.Path(each) for each in sys.argv[2:]]
    libraries = named or libraries_of_newest_build(root)
    if not libraries:
        print("symbols: NOTHING WAS CHECKED: there is no build below build/; run ./dev build first")
        return
    missing = [library for library in libraries if not library.is_file()]
    for library in missing:
        print(f"{library}: there is no such library: build it, or correct tests/tidy/CMakeLists.txt")
    bad = len(missing) + sum(check(library) for library in libraries if library.is_file())
    if bad:
        sys.exit(f"symbols: {bad} findings in {len(libraries)} libraries")
    print(f"symbols: {len(libraries)} core libraries are pure")


if __name__ == "__main__":
    main()
