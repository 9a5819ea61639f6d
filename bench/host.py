"""The machine: a file system that treats every engine alike, and the facts that figures depend on."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_DISK_BYTES = 24 << 30


@contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """A journaled ext4 of our own, mounted below *directory* and gone afterwards.

    A journal is what most hosts have; and an ext4 without one avoids inodes that were freed in the last minutes, so that whoever
    creates files one by one is slowed down by what others removed. The file is allocated ahead and read and written past the page
    cache, so that the loop device costs little.
    """
    directory.mkdir(parents=True, exist_ok=True)
    disk, point = directory / "disk.img", directory / "disk"
    point.mkdir(exist_ok=True)
    subprocess.run(["fallocate", "-l", str(_DISK_BYTES), disk], check=True)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", disk], check=True)
        setup = ["losetup", "--find", "--show", "--direct-io=on", str(disk)]
        device = subprocess.run(setup, check=True, capture_output=True, text=True).stdout.strip()
        try:
            subprocess.run(["mount", device, point], check=True)
            try:
                yield point
            finally:
                _unmount(point)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
    finally:
        disk.unlink()
        point.rmdir()
        directory.rmdir()


def _unmount(point: Path) -> None:
    """Unmount with all that the engines left mounted below; a namespace that is just ending may hold it for a moment."""
    for _ in range(50):
        if subprocess.run(["umount", "-R", point], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.2)
    subprocess.run(["umount", "-R", point], check=True)


def settle() -> None:
    """Let what earlier work left to be written be written, so that it is not counted for the next."""
    os.sync()


def facts() -> str:
    """One line about the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores ({_cpu()}), {memory:.0f} GiB, {_distribution()}, Linux {platform.release()}"


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "unknown"
