"""Capabilities: docker's default set, what ``--cap-add`` and ``--cap-drop`` make of it, and what the daemon has to give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from lamina.errors import InvalidArgument

# in the order of their numbers (linux/capability.h)
ALL = tuple(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "DAC_READ_SEARCH",
        "FOWNER",
        "FSETID",
        "KILL",
        "SETGID",
        "SETUID",
        "SETPCAP",
        "LINUX_IMMUTABLE",
        "NET_BIND_SERVICE",
        "NET_BROADCAST",
        "NET_ADMIN",
        "NET_RAW",
        "IPC_LOCK",
        "IPC_OWNER",
        "SYS_MODULE",
        "SYS_RAWIO",
        "SYS_CHROOT",
        "SYS_PTRACE",
        "SYS_PACCT",
        "SYS_ADMIN",
        "SYS_BOOT",
        "SYS_NICE",
        "SYS_RESOURCE",
        "SYS_TIME",
        "SYS_TTY_CONFIG",
        "MKNOD",
        "LEASE",
        "AUDIT_WRITE",
        "AUDIT_CONTROL",
        "SETFCAP",
        "MAC_OVERRIDE",
        "MAC_ADMIN",
        "SYSLOG",
        "WAKE_ALARM",
        "BLOCK_SUSPEND",
        "AUDIT_READ",
        "PERFMON",
        "BPF",
        "CHECKPOINT_RESTORE",
    ]
)

_DEFAULT = frozenset(
    "CAP_" + name
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
)


class UnknownCapability(InvalidArgument):
    """No capability has this name."""

    def __init__(self, name: str, option: str) -> None:
        super().__init__(f'invalid {option}: unknown capability: "{name}"')
        self.name = name


def effective_set(add: Sequence[str], drop: Sequence[str], *, privileged: bool) -> list[str]:
    """The capabilities a container gets, in the order of their numbers, as far as this process has them itself.

    Raises UnknownCapability.
    """
    added = {_normalize(name, "CapAdd") for name in add}
    dropped = {_normalize(name, "CapDrop") for name in drop}
    if privileged:
        chosen = set(ALL)
    else:
        chosen = set() if "ALL" in dropped else set(_DEFAULT)
        chosen = set(ALL) if "ALL" in added else chosen
        chosen -= dropped
        chosen |= added - {"ALL"}
    return [name for name in ALL if name in chosen and name in of_this_process()]


@cache
def of_this_process() -> frozenset[str]:
    """The bounding set: nobody can give what is not in it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next((text for text in file if text.startswith("CapBnd:")), "CapBnd: 0")
    bits = int(line.split()[1], 16)
    return frozenset(name for number, name in enumerate(ALL) if bits >> number & 1)


def _normalize(name: str, option: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
    if full not in ALL:
        raise UnknownCapability(full, option)
    return full
