#!/usr/bin/python3
"""The job of sizes is: keep C++ files small enough to read in one sitting.

  a source has at most 600 lines, a header at most 200, a line at most 100 columns.
"""

from lib import tree

SOURCE_LINES_MAX = 600
HEADER_LINES_MAX = 200
COLUMNS_MAX = 100


def main() -> None:
    root = tree.root_from_arguments()
    findings = tree.Findings(root)
    paths = tree.cpp_files(root)
    for path in paths:
        lines = path.read_text(encoding="utf-8").splitlines()
        header = path.suffix == ".hpp"
        most = HEADER_LINES_MAX if header else SOURCE_LINES_MAX
        if len(lines) > most:
            what = "a header" if header else "a source"
            findings.add(
                path, most + 1, f"{what} of {len(lines)} lines, {most} are the limit",
                "it has more than one job: split it by them",
            )  # fmt: skip
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS_MAX:
                findings.add(
                    path, number, f"{len(line)} columns, {COLUMNS_MAX} are the limit",
                    "run ./dev fmt",
                )  # fmt: skip
    findings.exit("sizes", len(paths))


if __name__ == "__main__":
    main()
