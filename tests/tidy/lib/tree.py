"""The job of tree is: what the tidy checks share. Which files of the product there are, how a
finding is told, and C++ text without comments and strings."""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parents[1]
REPOSITORY = HERE.parents[1]
FOLDERS = ("agent", "vmrepl", "hypervisor", "tests", "conf", "docs")
CODE_FOLDERS = ("agent", "vmrepl", "hypervisor", "tests")


class Findings:
    """Told as file:line: what is wrong: what to do."""

    def __init__(self, root: pathlib.Path):
        self._root = root
        self._count = 0

    def add(self, file: pathlib.Path, line: int, problem: str, remedy: str) -> None:
        self._count += 1
        print(f"{file.relative_to(self._root)}:{line}: {problem}: {remedy}")

    def exit(self, what: str, looked_at: int) -> None:
        if looked_at == 0:
            sys.exit(f"{what}: nothing to look at below {self._root}: is that the source tree?")
        if self._count:
            sys.exit(f"{what}: {self._count} findings in {looked_at} files")
        print(f"{what}: {looked_at} files are clean")


def root_from_arguments() -> pathlib.Path:
    return pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else REPOSITORY).resolve()


def files(root: pathlib.Path, folders, suffixes=None) -> list[pathlib.Path]:
    """Sorted. The bad samples of these checks count only when `root` is one of them."""
    found = []
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            if suffixes and path.suffix not in suffixes:
                continue
            if path.is_relative_to(root / "tests" / "tidy"):
                continue
            found.append(path)
    return found


def cpp_files(root: pathlib.Path) -> list[pathlib.Path]:
    return files(root, CODE_FOLDERS, {".cpp", ".hpp"})


_NOISE = re.compile(
    r"""//[^\n]*                         # a comment to the end of the line
      | /\*.*?\*/                        # a comment of any length
      | R"(?P<tag>[^()\s]*)\(.*?\)(?P=tag)"   # a raw string
      | "(?:\\.|[^"\\\n])*"              # a string
      | (?<![0-9a-fA-F_])'(?:\\.|[^'\\\n])+'  # a character, not a digit separator
    """,
    re.DOTALL | re.VERBOSE,
)


def without_noise(text: str) -> str:
    """Comments and the contents of strings become blanks; line numbers stay."""

    def blank(match: re.Match) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    return _NOISE.sub(blank, text)


def line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
