"""lossyfs judged: SIGKILL leaves on its medium what was flushed and a random part of the rest, and
until then every reader sees the newest data. The same checks must fail on a mount that loses
nothing."""

import contextlib
import errno
import os
import pathlib
import random
import signal
import sqlite3
import subprocess

import pytest

from lab.disk import PROGRAM, need_fuse, same_content
from lab.procs import wait_until
from lab.programs import bin_dir, need

BLOCK = 4096
OLD, NEW = b"o" * BLOCK, b"n" * BLOCK
MIB = 1 << 20


class Disk:
    """lossyfs in a mount namespace of its own; `view` is its mount, `medium` what is behind it."""

    def __init__(self, folder: pathlib.Path, *options: str):
        need_fuse()
        need(bin_dir(), [PROGRAM, "disk-probe"])
        self.medium = folder / "medium"
        self._mount_point = folder / "mount"
        self._options = options
        for each in (self.medium, self._mount_point):
            each.mkdir(exist_ok=True)
        self.boot()

    def boot(self) -> None:
        argv = [bin_dir() / PROGRAM, self.medium, self._mount_point, *self._options]
        self.process = subprocess.Popen(["unshare", "--mount", *map(str, argv)])
        self.view = pathlib.Path(f"/proc/{self.process.pid}/root{self._mount_point}")
        wait_until("lossyfs to be mounted", self._is_mounted, 20, 0.005)

    def _is_mounted(self) -> bool:
        assert self.process.poll() is None, "lossyfs ended at once"
        with contextlib.suppress(FileNotFoundError):  # unshare(1) is still at work
            return self.view.stat().st_dev != self._mount_point.stat().st_dev
        return False

    def cut(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def left(self, name: str = "file") -> bytes:
        """What a power cut leaves of a file."""
        self.cut()
        return (self.medium / name).read_bytes()


@pytest.fixture
def make_disk(tmp_path):
    made = []

    def make(*options: str) -> Disk:
        folder = tmp_path / f"{len(made)}"
        folder.mkdir()
        made.append(Disk(folder, *options))
        return made[-1]

    yield make
    for disk in made:
        disk.cut()


@pytest.fixture
def disk(make_disk) -> Disk:
    return make_disk()


@contextlib.contextmanager
def opened(path: pathlib.Path, flags: int = 0):
    fd = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


def flushed(disk: Disk, content: bytes, name: str = "file") -> pathlib.Path:
    with opened(disk.view / name) as fd:
        os.write(fd, content)
        os.fsync(fd)
    return disk.view / name


def probe(*words, check: bool = True) -> subprocess.CompletedProcess:
    """The engine's own disk driver on an image."""
    done = subprocess.run(
        [bin_dir() / "disk-probe", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert not check or done.returncode == 0, done.stderr
    return done


# --- what must be lost ----------------------------------------------------------------------------


def a_new_file(disk: Disk) -> tuple[bytes, bytes]:
    with opened(disk.view / "file") as fd:
        os.write(fd, NEW)
    return disk.left(), b""


def an_overwrite(disk: Disk) -> tuple[bytes, bytes]:
    with opened(flushed(disk, OLD * 3)) as fd:
        os.pwrite(fd, NEW, BLOCK)
        assert os.pread(fd, 3 * BLOCK, 0) == OLD + NEW + OLD
    return disk.left(), OLD * 3


def an_append(disk: Disk) -> tuple[bytes, bytes]:
    with opened(flushed(disk, OLD), os.O_APPEND) as fd:
        os.write(fd, NEW)
    assert (disk.view / "file").read_bytes() == OLD + NEW
    return disk.left(), OLD


def a_direct_write(disk: Disk) -> tuple[bytes, bytes]:
    """O_DIRECT goes past the page cache, not past the disk's own."""
    path = flushed(disk, OLD * 2)
    probe(path, "write", BLOCK, BLOCK, ord("n"))
    assert path.read_bytes() == OLD + NEW
    return disk.left(), OLD * 2


def a_punched_hole(disk: Disk) -> tuple[bytes, bytes]:
    path = flushed(disk, OLD * 3)
    probe(path, "punch", BLOCK, BLOCK)
    assert path.read_bytes() == OLD + bytes(BLOCK) + OLD
    return disk.left(), OLD * 3


def a_zeroed_range(disk: Disk) -> tuple[bytes, bytes]:
    path = flushed(disk, OLD * 3)
    probe(path, "zero", BLOCK, BLOCK)
    assert path.read_bytes() == OLD + bytes(BLOCK) + OLD
    return disk.left(), OLD * 3


def beside_a_flush_of_another_file(disk: Disk) -> tuple[bytes, bytes]:
    with opened(flushed(disk, OLD)) as fd, opened(disk.view / "other") as other:
        os.pwrite(fd, NEW, 0)
        os.write(other, NEW)
        os.fdatasync(other)
    found = disk.left()
    assert (disk.medium / "other").read_bytes() == NEW, "what was flushed is lost"
    return found, OLD


def beside_a_durable_write(disk: Disk) -> tuple[bytes, bytes]:
    with opened(flushed(disk, OLD * 2)) as fd:
        os.pwrite(fd, NEW, 0)
        assert os.pwritev(fd, [NEW], BLOCK, os.RWF_DSYNC) == BLOCK
    return disk.left(), OLD + NEW


def a_renamed_file(disk: Disk) -> tuple[bytes, bytes]:
    with opened(disk.view / "file.new") as fd:
        os.write(fd, NEW)
    os.rename(disk.view / "file.new", disk.view / "file")
    assert (disk.view / "file").read_bytes() == NEW
    return disk.left(), b""


LOST = [
    a_new_file,
    an_overwrite,
    an_append,
    a_direct_write,
    a_punched_hole,
    a_zeroed_range,
    beside_a_flush_of_another_file,
    beside_a_durable_write,
    a_renamed_file,
]


@pytest.mark.parametrize("case", LOST, ids=lambda case: case.__name__)
def test_what_is_not_flushed_is_lost(disk, case):
    left, expected = case(disk)
    assert left == expected


@pytest.mark.parametrize("case", LOST, ids=lambda case: case.__name__)
def test_a_mount_that_loses_nothing_is_seen(make_disk, case):
    left, expected = case(make_disk("--honest"))
    assert left != expected


# --- what must be kept ----------------------------------------------------------------------------


def by_sync(sync):
    def write(path: pathlib.Path) -> None:
        with opened(path) as fd:
            os.pwrite(fd, NEW, BLOCK)
            sync(fd)

    return write


def by_open_flag(flag: int):
    def write(path: pathlib.Path) -> None:
        with opened(path, flag) as fd:
            os.pwrite(fd, NEW, BLOCK)

    return write


def by_rwf_dsync(path: pathlib.Path) -> None:
    with opened(path) as fd:
        os.pwritev(fd, [NEW], BLOCK, os.RWF_DSYNC)


def by_engine(*words):
    def write(path: pathlib.Path) -> None:
        if path.stat().st_size < 2 * BLOCK:  # an engine never writes beyond its image
            os.truncate(path, 2 * BLOCK)
        probe(path, words[0], BLOCK, BLOCK, ord("n"), *words[1:])

    return write


FLUSHES = {
    "fsync": by_sync(os.fsync),
    "fdatasync": by_sync(os.fdatasync),
    "O_DSYNC": by_open_flag(os.O_DSYNC),
    "O_SYNC": by_open_flag(os.O_SYNC),
    "RWF_DSYNC": by_rwf_dsync,
    "engine-fua": by_engine("fua"),
    "engine-flush": by_engine("write", "flush"),
}


@pytest.mark.parametrize("how", FLUSHES)
@pytest.mark.parametrize("old", [OLD * 3, OLD], ids=["inside", "at-the-end"])
def test_what_is_flushed_is_kept(disk, how, old):
    path = flushed(disk, old)
    FLUSHES[how](path)
    assert disk.left() == OLD + NEW + old[2 * BLOCK :]


def test_a_flushed_hole_is_kept(disk):
    path = flushed(disk, OLD * 3)
    probe(path, "punch", BLOCK, BLOCK, "flush")
    assert disk.left() == OLD + bytes(BLOCK) + OLD


def test_an_orderly_end_flushes(disk):
    with opened(flushed(disk, OLD)) as fd:
        os.pwrite(fd, NEW, BLOCK)
    assert disk.end() == 0
    assert (disk.medium / "file").read_bytes() == OLD + NEW


def test_a_boot_after_the_cut_shows_the_medium(disk):
    path = flushed(disk, OLD)
    with opened(path) as fd:
        os.pwrite(fd, NEW, 0)
    disk.cut()
    disk.boot()
    assert (disk.view / "file").read_bytes() == OLD


def test_a_database_keeps_what_it_committed(disk):
    """SQLite with a write-ahead log, as havmd and havm-witness use it."""
    base = sqlite3.connect(disk.view / "base", isolation_level=None)
    assert base.execute("PRAGMA journal_mode=WAL").fetchone() == ("wal",)
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE t (n INTEGER)")
    for n in range(50):
        base.execute("INSERT INTO t VALUES (?)", (n,))
    disk.cut()
    base.close()
    disk.boot()
    with contextlib.closing(sqlite3.connect(disk.view / "base")) as found:
        assert found.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert found.execute("SELECT n FROM t ORDER BY n").fetchall() == [(n,) for n in range(50)]


# --- the random part ------------------------------------------------------------------------------


def left_by_seed(disk: Disk) -> bytes:
    with opened(flushed(disk, OLD * 200)) as fd:
        for block in range(200):
            os.pwrite(fd, NEW, block * BLOCK)
        assert os.pread(fd, 200 * BLOCK, 0) == NEW * 200
    return disk.left()


def test_a_seed_decides_what_survives_unflushed(make_disk):
    chance = ("--keep-chance", "0.5", "--seed")
    one, again, other = (left_by_seed(make_disk(*chance, seed)) for seed in ("7", "7", "8"))
    assert one == again != other
    sectors = {one[at : at + 512] for at in range(0, len(one), 512)}
    assert sectors == {OLD[:512], NEW[:512]}, "a write was torn inside a sector"
    blocks = [one[at : at + BLOCK] for at in range(0, len(one), BLOCK)]
    torn = sum(1 for block in blocks if block not in (OLD, NEW))
    assert OLD in blocks and NEW in blocks and torn, "lost, kept and torn writes are expected"


# --- a file system like others --------------------------------------------------------------------


def test_readers_see_the_newest_data(make_disk):
    """Against a file in memory, with every kind of change, over the limit of volatile memory too."""
    disk = make_disk("--keep-chance", "0.3", "--memory-mib", "1")
    rng, size = random.Random(4), 3 * MIB
    model = bytearray(size)
    path = flushed(disk, bytes(size))
    with opened(path) as fd:
        for _ in range(400):
            at = rng.randrange(size)
            length = min(rng.randrange(1, 64 << 10), size - at)
            match rng.randrange(6):
                case 0:
                    os.fsync(fd)
                case 1:
                    os.truncate(path, at)
                    os.truncate(path, size)
                    model[at:] = bytes(size - at)
                case 2:
                    first, last = at // BLOCK * BLOCK, (at + length) // BLOCK * BLOCK
                    if last > first:
                        probe(path, rng.choice(["punch", "zero"]), first, last - first)
                        model[first:last] = bytes(last - first)
                case _:
                    data = rng.randbytes(length)
                    os.pwrite(fd, data, at)
                    model[at : at + length] = data
            assert os.pread(fd, length, at) == model[at : at + length]
    (disk.medium / "model").write_bytes(model)
    assert same_content(path, disk.medium / "model")


def extents(path: pathlib.Path) -> list[tuple[str, int, int]]:
    lines = [line.split() for line in probe(path, "extents").stdout.splitlines()]
    return [(kind, int(at), int(length)) for kind, at, length in (x for x in lines if len(x) == 3)]


def test_holes_are_told_where_nothing_is_and_never_where_data_is_volatile(disk):
    path = flushed(disk, b"")
    os.truncate(path, MIB)
    assert extents(path) == [("hole", 0, MIB)]
    probe(path, "write", 256 << 10, 64 << 10, 1)
    found = extents(path)
    assert found == [
        ("hole", 0, 256 << 10),
        ("data", 256 << 10, 64 << 10),
        ("hole", 320 << 10, MIB - (320 << 10)),
    ]
    with opened(path) as fd:
        os.fsync(fd)
    assert extents(path) == found
    probe(path, "punch", 256 << 10, 64 << 10)
    assert extents(path) == [("hole", 0, MIB)]


def test_names_links_and_open_files_without_a_name(disk):
    (disk.view / "folder").mkdir()
    with opened(disk.view / "folder" / "one") as fd:
        os.write(fd, NEW)
        os.link(disk.view / "folder" / "one", disk.view / "two")
        os.symlink("two", disk.view / "three")
        assert (disk.view / "two").read_bytes() == (disk.view / "three").read_bytes() == NEW
        assert (disk.view / "two").stat().st_ino == os.fstat(fd).st_ino
        (disk.view / "two").unlink()
        (disk.view / "folder" / "one").unlink()
        os.pwrite(fd, OLD, 0)
        assert os.pread(fd, BLOCK, 0) == OLD
    for number in range(500):
        (disk.view / "folder" / f"{number}").touch()
    assert len(os.listdir(disk.view / "folder")) == 500
    (disk.view / "folder" / "0").chmod(0o640)
    assert (disk.view / "folder" / "0").stat().st_mode & 0o777 == 0o640
    with pytest.raises(OSError) as refused:
        (disk.view / "folder").rmdir()
    assert refused.value.errno == errno.ENOTEMPTY
    with pytest.raises(FileExistsError):
        os.link(disk.view / "folder" / "1", disk.view / "folder" / "2")
    assert os.listdir(disk.view) == os.listdir(disk.medium)


# --- what the engine needs of it ------------------------------------------------------------------


def test_image_locks_exclude_engines_and_qemu(disk):
    path = flushed(disk, bytes(MIB))
    engine = subprocess.Popen(
        [bin_dir() / "disk-probe", path, "hold"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert engine.stdout.readline() == "direct 1\n" and engine.stdout.readline() == "holding\n"
    write = ["qemu-io", "-f", "raw", "-c", "write 0 4k", str(path)]
    refused = subprocess.run(write, capture_output=True, text=True)
    assert refused.returncode != 0 and "lock" in refused.stderr, refused
    second = probe(path, "flush", check=False)
    assert second.returncode == 1 and "in use" in second.stderr, second
    engine.communicate(timeout=10)
    subprocess.run(write, check=True, capture_output=True)
    qemu = subprocess.Popen(
        ["qemu-io", "-f", "raw", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    qemu.stdin.write("read 0 4k\n")
    qemu.stdin.flush()
    assert any("read 4096/4096" in line for line in iter(qemu.stdout.readline, ""))
    third = probe(path, "flush", check=False)
    assert third.returncode == 1 and "qemu-io" in third.stderr, third
    qemu.communicate("quit\n", timeout=10)
    probe(path, "flush")


def test_a_record_is_made_durably_without_nameless_files(disk):
    with pytest.raises(OSError) as refused:
        os.open(disk.view, os.O_TMPFILE | os.O_RDWR)
    assert refused.value.errno == errno.EOPNOTSUPP, "this test wants a disk without O_TMPFILE"
    probe("--record", disk.view / "record")
    exists = probe("--record", disk.view / "record", check=False)
    assert exists.returncode == 1 and "exists already" in exists.stderr
    left = disk.left("record")
    assert left.count(b"HAVMREC1") == 2 and os.listdir(disk.medium) == ["record"]
