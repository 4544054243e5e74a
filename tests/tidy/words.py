#!/usr/bin/python3
"""The job of words is: refuse what says that something is not finished, or that belongs to the
machine of whoever wrote it.

  no mark of unfinished work in any file of ours;
  no absolute path into a person's directories.
"""

import re

from lib import tree

UNFINISHED = re.compile(
    r"\b(TODO|FIXME|XXX|HACK|TBD)\b|\b(stubs?|stubbed|placeholders?)\b|\bnot (yet )?implemented\b",
    re.IGNORECASE,
)
PERSONAL = re.compile(r"(?<![\w./-])/(home|root|work|Users|mnt/c)/[\w.-]+")
ALONE = ("dev", "CMakeLists.txt", "CMakePresets.json", "README.md", ".ci/run")


def paths_of(root):
    alone = [root / name for name in ALONE if (root / name).is_file()]
    return alone + tree.files(root, tree.FOLDERS)


def main() -> None:
    root = tree.root_from_arguments()
    findings = tree.Findings(root)
    paths = paths_of(root)
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # not text: nothing to read
        for number, line in enumerate(text.splitlines(), 1):
            if match := UNFINISHED.search(line):
                findings.add(
                    path, number, f"'{match[0]}' says that something is not finished",
                    "finish it, or say in words what does not exist",
                )  # fmt: skip
            if match := PERSONAL.search(line):
                findings.add(
                    path, number, f"'{match[0]}' is a path of one machine",
                    "derive it from the tree, an argument or an environment variable",
                )  # fmt: skip
    findings.exit("words", len(paths))


if __name__ == "__main__":
    main()
