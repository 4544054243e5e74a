"""The job of this module is: to find what was built."""

import os
import pathlib

from .procs import LabError

ROOT = pathlib.Path(__file__).resolve().parents[3]


def bin_dir() -> pathlib.Path:
    """Where the built programs are: $HAVM_BIN_DIR, else the release build."""
    return pathlib.Path(
        os.environ.get("HAVM_BIN_DIR", ROOT / "build" / "release" / "bin")
    ).absolute()


def need(folder: pathlib.Path, names) -> None:
    missing = sorted(name for name in set(names) if not (folder / name).exists())
    if missing:
        raise LabError(f"{folder} has no {', '.join(missing)}; run ./dev build release first")
