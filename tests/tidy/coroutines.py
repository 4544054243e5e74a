#!/usr/bin/python3
"""The job of coroutines is: keep the rules without which coroutines of g++ 12 or of Boost.Asio go
wrong silently.

  In a co_await expression there is no brace and no lambda: g++ 12 destroys such temporaries twice.
  No lambda with captures is itself a coroutine: its captures die with the lambda, not with the task.
  Nothing is spawned `detached`: an exception in it would be swallowed.
"""

import re

from lib import tree

AWAIT = re.compile(r"\bco_await\b")
LAMBDA = re.compile(r"(?<![\w\])])\[(?!\[)")  # not a subscript, not an attribute
CAPTURING_COROUTINE = re.compile(
    r"(?<![\w\])])\[(?!\[)[^\]]+\]\s*(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*(?:mutable\s*)?"
    r"->\s*[\w:]*\bawaitable\b"
)
DETACHED = re.compile(r"\bdetached\b")
# The one place that spawns, and hands every exception to a handler.
SPAWNER = "vmrepl/base/spawn_supervised"


def expression(text: str, start: int) -> str:
    """From co_await to the end of its full expression: `;`, or the bracket or `,` that closes what
    it stands in."""
    depth = 0
    for position in range(start, len(text)):
        char = text[position]
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
            if depth < 0:
                return text[start:position]
        elif char == ";" and depth == 0:
            return text[start:position]
    return text[start:]


def check(path, text, name, findings) -> None:
    for match in AWAIT.finditer(text):
        line = tree.line_of(text, match.start())
        whole = expression(text, match.end())
        if "{" in whole:
            findings.add(
                path, line, "a brace inside a co_await expression (g++ 12 destroys it twice)",
                "name the value on a line before, then move it in",
            )  # fmt: skip
        if LAMBDA.search(whole):
            findings.add(
                path, line, "a lambda inside a co_await expression (g++ 12 destroys it twice)",
                "name it on a line before (std::function<…> f = …), then move it in",
            )  # fmt: skip
    for match in CAPTURING_COROUTINE.finditer(text):
        findings.add(
            path, tree.line_of(text, match.start()), "a lambda with captures is a coroutine",
            "write a function and pass what it needs as arguments",
        )  # fmt: skip
    if name.startswith(SPAWNER):
        return
    for match in DETACHED.finditer(text):
        findings.add(
            path, tree.line_of(text, match.start()), "something is spawned detached",
            "use spawn_supervised (vmrepl/base/spawn_supervised.hpp)",
        )  # fmt: skip


def main() -> None:
    root = tree.root_from_arguments()
    findings = tree.Findings(root)
    paths = tree.cpp_files(root)
    for path in paths:
        text = tree.without_noise(path.read_text(encoding="utf-8"))
        check(path, text, path.relative_to(root).as_posix(), findings)
    findings.exit("coroutines", len(paths))


if __name__ == "__main__":
    main()
