"""Names of the host's that one daemon may use at a time: its bridge, its firewall table.

A claim is a bound socket in the abstract namespace (unix(7)): it belongs to a network namespace, as bridges and tables do, and ends with
the process however that ends.
"""

from __future__ import annotations

import socket

from lamina.errors import Conflict

_LONGEST_INTERFACE = 15
_UNFIT = '/: "\\%'
"""What the kernel refuses, and what names in firewall rules cannot have."""


class NameTaken(Conflict):
    """Another daemon uses a bridge or a table."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"{kind} {name} is in use by another lamina daemon")
        self.kind = kind
        self.name = name

    @property
    def hint(self) -> str:
        """What to do about it."""
        return "give each daemon a --bridge and an --nft-table of its own, or none, and they choose"


class Claims:
    """The names that this process holds."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self, kind: str, name: str) -> bool:
        """Claim a name; False if another process has it."""
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0lamina-{kind}-{name}")
        except OSError:
            claim.close()
            return False
        self._sockets.append(claim)
        return True

    def release(self) -> None:
        """Let go of all names."""
        while self._sockets:
            self._sockets.pop().close()


def check_interface_name(name: str) -> bool:
    """Whether the kernel takes a name for an interface (dev_valid_name), and rules can have it between quotes."""
    return (
        0 < len(name) <= _LONGEST_INTERFACE
        and name not in (".", "..")
        and name.isascii()
        and name.isprintable()
        and not any(c in _UNFIT for c in name)
    )
