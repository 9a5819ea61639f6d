"""System calls through libc, with errno turned into OSError."""

from __future__ import annotations

import ctypes
import os

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
