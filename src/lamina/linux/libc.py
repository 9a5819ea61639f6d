"""System calls through libc, with errno turned into OSError."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_X32_GETPID = 0x4000_0000 | 39

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def check(result: int, *paths: str) -> int:
    """Return *result*, or raise the OSError that errno names, with the paths that the call was about."""
    if result >= 0:
        return result
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), *paths)


def syscall(number: int, *arguments: object, paths: tuple[str, ...] = ()) -> int:
    """Make a raw system call. Integers are passed as C longs, bytes as pointers.

    Raises OSError when the kernel refuses.
    """
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(_libc.syscall(ctypes.c_long(number), *converted), *paths)


def call(name: str, *arguments: object, paths: tuple[str, ...] = ()) -> int:
    """Call the libc function *name*; raises OSError when it returns a negative number."""
    return check(getattr(_libc, name)(*arguments), *paths)


def has_x32_calls() -> bool:
    """Whether an x86-64 kernel answers x32's numbers (CONFIG_X86_X32_ABI, which distributions leave out or switched off).

    True as well where it cannot be tried: under a seccomp filter, which may kill who asks (proc(5), ``Seccomp``).
    """
    if "Seccomp:\t0" not in Path("/proc/self/status").read_text(encoding="ascii", errors="replace"):
        return True
    try:
        syscall(_X32_GETPID)
    except OSError:
        return False
    return True
