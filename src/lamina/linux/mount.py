"""Mounting by file descriptor: fsopen, fsconfig, fsmount, move_mount, and the older mount(2) and umount2(2).

Numbers are those of the kernel's uapi headers (linux/mount.h, asm-generic/unistd.h); the new mount calls have the same number on
every architecture. mount(8) is not used: it would make a loop device of a file-backed EROFS.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from types import TracebackType

from lamina.linux import libc

_SYS_OPEN_TREE = 428
_SYS_MOVE_MOUNT = 429
_SYS_FSOPEN = 430
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_MOUNT_SETATTR = 442

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOVE_MOUNT_T_SYMLINKS = 0x10
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_AT_FDCWD = -100

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20

MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOEXEC = 8
_MOUNT_ATTR_IDMAP = 0x0010_0000


_OVERLAY_OPTIONS = (
    ("xino", "on"),  # one device number for all lowers, so that du -x and find -xdev see one file system
    ("redirect_dir", "nofollow"),  # a renamed directory is copied: a layer has no words for a redirect
    ("metacopy", "off"),  # nor for a file that is only attributes
    ("index", "off"),
)


class FilesystemContext:
    """A file system being configured (fsopen(2)); ``mount()`` turns it into a detached mount.

    Values are limited to 255 bytes by the kernel; a longer path is passed as ``/proc/self/fd/N``. Every failure is an OSError whose
    text includes what the kernel wrote into the context's log.
    """

    def __init__(self, filesystem: str) -> None:
        self._filesystem = filesystem
        self._fd = libc.syscall(_SYS_FSOPEN, filesystem.encode(), _FSOPEN_CLOEXEC, paths=(filesystem,))

    def __enter__(self) -> FilesystemContext:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def set_string(self, key: str, value: str) -> None:
        """Set an option that has a value."""
        self._config(_FSCONFIG_SET_STRING, key, value.encode(), 0)

    def set_flag(self, key: str) -> None:
        """Set an option that has none."""
        self._config(_FSCONFIG_SET_FLAG, key, None, 0)

    def set_fd(self, key: str, fd: int) -> None:
        """Set an option whose value is an open file, such as overlayfs' ``lowerdir+``."""
        self._config(_FSCONFIG_SET_FD, key, None, fd)

    def mount(self, attributes: int = 0) -> int:
        """Create the superblock and return the descriptor of a detached mount of it; closing that unmounts it."""
        self._config(_FSCONFIG_CMD_CREATE, None, None, 0)
        return libc.syscall(_SYS_FSMOUNT, self._fd, _FSMOUNT_CLOEXEC, attributes, paths=(self._filesystem,))

    def _config(self, command: int, key: str | None, value: bytes | None, aux: int) -> None:
        try:
            libc.syscall(_SYS_FSCONFIG, self._fd, command, key.encode() if key is not None else None, value, aux)
        except OSError as error:
            what = f"{self._filesystem} {key or 'create'}"
            raise OSError(error.errno, f"{error.strerror}{self._log()}", what) from None

    def _log(self) -> str:
        """What the kernel says about the failure: lines such as ``e overlay: …``."""
        lines = []
        while True:
            try:
                lines.append(os.read(self._fd, 1024).decode(errors="replace").strip())
            except OSError:
                return f" ({'; '.join(lines)})" if lines else ""


def attach(mount_fd: int, target: str) -> None:
    """Attach a detached mount at *target*, which may be ``/proc/self/fd/N`` (move_mount(2)). Raises OSError."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_SYMLINKS
    libc.syscall(_SYS_MOVE_MOUNT, mount_fd, b"", _AT_FDCWD, os.fsencode(target), flags, paths=(target,))


def clone_tree(path: str, *, recursive: bool = False) -> int:
    """Return a detached copy of the mount at *path*, a bind mount that has no place yet (open_tree(2))."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return libc.syscall(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags, paths=(path,))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def set_attributes(mount_fd: int, attributes: int, *, recursive: bool = False) -> None:
    """Set mount attributes, such as read-only, on a mount held by descriptor (mount_setattr(2))."""
    request = _MountAttr(attr_set=attributes)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    libc.syscall(_SYS_MOUNT_SETATTR, mount_fd, b"", flags, ctypes.byref(request), ctypes.sizeof(request))


def set_owner_mapping(mount_fd: int, user_namespace: int) -> None:
    """Show the files of a detached mount with the owners that they have in a user namespace (mount_setattr(2)). Raises OSError."""
    request = _MountAttr(attr_set=_MOUNT_ATTR_IDMAP, userns_fd=user_namespace)
    libc.syscall(_SYS_MOUNT_SETATTR, mount_fd, b"", _AT_EMPTY_PATH, ctypes.byref(request), ctypes.sizeof(request))


def has_recursive_attributes() -> bool:
    """Whether the kernel can change the attributes of a whole tree of mounts (mount_setattr(2), Linux 5.12)."""
    try:
        set_attributes(-1, 0)
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def mount(source: str, target: str, filesystem: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError that names the target."""
    libc.call(
        "mount",
        os.fsencode(source),
        os.fsencode(target),
        filesystem.encode() if filesystem else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
        paths=(target,),
    )


def bind(source: str, target: str, *, recursive: bool = True) -> None:
    """Make *source* appear at *target* too."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def unmount(target: str, *, detach: bool = True) -> None:
    """umount2(2); with *detach* the mount disappears at once and is freed when its last user is gone. Raises OSError."""
    libc.call("umount2", os.fsencode(target), ctypes.c_int(MNT_DETACH if detach else 0), paths=(target,))


def is_mountpoint(path: str) -> bool:
    """Whether something is mounted at *path* (in this mount namespace)."""
    return path in mountpoints()


def mountpoints(below: str | None = None) -> list[str]:
    """The mount points of this namespace at or below a path, deepest first, so that they can be unmounted in this order."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [_unescape(line.split(" ")[4]) for line in file]
    if below is not None:
        prefix = below.rstrip("/") + "/"
        points = [p for p in points if p == below or p.startswith(prefix)]
    return sorted(points, key=lambda p: p.count("/"), reverse=True)


def unmount_all(below: str) -> None:
    """Detach every mount at or below a path."""
    for point in mountpoints(below):
        unmount(point)


def _unescape(text: str) -> str:
    """mountinfo writes space, tab, newline and backslash in octal (proc_pid_mountinfo(5))."""
    if "\\" not in text:
        return text
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(p[:3], 8)) + p[3:] for p in parts[1:])


def overlay_read_only(lowers: Iterable[int]) -> int:
    """Return a detached overlay mount of two or more directories, the topmost first, that nobody can write to."""
    with FilesystemContext("overlay") as context:
        for lower in lowers:
            context.set_fd("lowerdir+", lower)
        context.set_string("xino", "on")
        return context.mount()


def overlay(lowers: Iterable[int], upper: str, work: str) -> int:
    """Return a detached overlay mount: *lowers* are directory descriptors, the topmost first; *upper* and *work* are paths."""
    with FilesystemContext("overlay") as context:
        for lower in lowers:
            context.set_fd("lowerdir+", lower)
        context.set_string("upperdir", upper)
        context.set_string("workdir", work)
        for option, value in _OVERLAY_OPTIONS:
            context.set_string(option, value)
        return context.mount()
