"""Namespaces: creating, entering and pinning them (namespaces(7), setns(2), unshare(2))."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lamina.linux import libc, mount
from lamina.linux.user_namespace import user_pin_of

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

T = TypeVar("T")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces."""
    libc.call("unshare", ctypes.c_int(flags))


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace of an open file."""
    libc.call("setns", ctypes.c_int(fd), ctypes.c_int(kind))


def in_own_thread(function: Callable[[], T]) -> T:
    """Run *function* in a thread made for it, which ends with it: what it does to its namespaces cannot leak to another caller."""
    outcome: list[T] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def create_network_namespace(pin: Path, owner: Callable[[Path], None] | None = None) -> None:
    """Create a network namespace that lives as long as the bind mount at *pin* (a file that this makes). Raises OSError.

    *owner* makes and pins one that another user namespace owns.
    """
    os.close(os.open(pin, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o400))
    if owner is not None:
        owner(pin)
        return

    def create() -> None:
        unshare(CLONE_NEWNET)
        mount.bind("/proc/thread-self/ns/net", str(pin), recursive=False)

    try:
        in_own_thread(create)
    except OSError:
        pin.unlink()
        raise


def in_network_namespace(pin: Path, function: Callable[[], T]) -> T:
    """Run *function* in a thread of its own inside the network namespace pinned at *pin*."""

    def enter() -> T:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
        return function()

    return in_own_thread(enter)


def remove_network_namespace(pin: Path) -> None:
    """Let go of a pinned network namespace, and of the user namespace that owns it; gone already is no error."""
    for path in (pin, user_pin_of(pin)):
        try:
            mount.unmount(str(path))
        except OSError as error:
            if error.errno not in (2, 22):  # ENOENT: no such file; EINVAL: not a mount
                raise
        path.unlink(missing_ok=True)
