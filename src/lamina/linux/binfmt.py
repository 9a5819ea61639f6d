"""Which foreign programs the kernel hands to an interpreter: binfmt_misc (Documentation/admin-guide/binfmt-misc.rst).

Handlers are looked up by what they match, an ELF header of the architecture, and not by their names, which anybody may choose.
"""

from __future__ import annotations

import os
import re
import struct

from lamina.linux.mount import FilesystemContext

# e_machine, class (1: 32 bits, 2: 64), byte order (1: little, 2: big); elf.h
_MACHINES = {
    "386": (3, 1, 1),
    "amd64": (62, 2, 1),
    "arm": (40, 1, 1),
    "arm64": (183, 2, 1),
    "loong64": (258, 2, 1),
    "mips": (8, 1, 2),
    "mipsle": (8, 1, 1),
    "mips64": (8, 2, 2),
    "mips64le": (8, 2, 1),
    "ppc64": (21, 2, 2),
    "ppc64le": (21, 2, 1),
    "riscv64": (243, 2, 1),
    "s390x": (22, 2, 2),
}
_EXECUTABLE = 2
_RUNS_TOO = {"amd64": ("386",), "arm64": ("arm",)}
"""What a kernel of one architecture runs of others by itself, where the processor can."""
_FIELD = re.compile(r"^(offset|magic|mask) (\S+)$", re.MULTILINE)


def can_run(architecture: str, *, host: str) -> bool:
    """Whether programs of an architecture (Go's name) run on a host of another: natively, or by a handler. Blocking."""
    if architecture == host or architecture in _RUNS_TOO.get(host, ()):
        return True
    header = elf_header(architecture)
    return header is not None and any(matches(handler, header) for handler in handlers())


def elf_header(architecture: str) -> bytes | None:
    """The beginning of an executable of an architecture; None for one that is not known."""
    if architecture not in _MACHINES:
        return None
    machine, word, order = _MACHINES[architecture]
    identity = b"\x7fELF" + bytes((word, order, 1)) + bytes(9)
    return identity + struct.pack("<HHI" if order == 1 else ">HHI", _EXECUTABLE, machine, 1)


def matches(handler: str, header: bytes) -> bool:
    """Whether a handler, as its file describes it, is enabled and takes a program that begins like this."""
    if not handler.startswith("enabled\n"):
        return False
    fields = dict(_FIELD.findall(handler))
    if "magic" not in fields:  # it goes by file names
        return False
    try:
        offset, magic = int(fields.get("offset", "0")), bytes.fromhex(fields["magic"])
        mask = bytes.fromhex(fields["mask"]) if "mask" in fields else b"\xff" * len(magic)
    except ValueError:
        return False
    found = header[offset : offset + len(magic)]
    if len(found) < len(magic):
        return False
    return all(a & m == b & m for a, b, m in zip(found, magic, mask, strict=False))


def handlers() -> list[str]:
    """The kernel's handlers as their files describe them; none where it has no binfmt_misc.

    The file system is looked at without being mounted anywhere. Blocking.
    """
    try:
        with FilesystemContext("binfmt_misc") as context:
            mounted = context.mount()
    except OSError:
        return []
    try:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mounted)
    finally:
        os.close(mounted)
    try:
        names = [name for name in os.listdir(root) if name not in ("register", "status")]
        return [_read(name, root) for name in names]
    finally:
        os.close(root)


def _read(name: str, directory: int) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return ""
    with open(fd, encoding="ascii", errors="replace") as file:
        return file.read()
