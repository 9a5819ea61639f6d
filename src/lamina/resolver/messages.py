"""What the daemon tells the resolver, one JSON object a line, each answered by one."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec

ADDRESS = "127.0.0.11"
"""Where a container asks, as with docker."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A container in one network: by which names the others there find it. The first one is what its address is told to be."""

    network: str
    network_name: str
    names: list[str]
    addresses: list[str]


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A container's network namespace, pinned at ``pin``.

    ``links`` are names that it alone knows, each with the name that others know. ``servers`` are to be asked for names that
    no container has, instead of the host's; without ``forwards`` nobody is.
    """

    pin: str
    container: str
    members: list[Member]
    links: dict[str, str] = {}
    servers: list[str] = []
    forwards: bool = True


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """``put`` and ``drop`` are about one sandbox, ``sync`` about all that there are to be; ``exit`` ends the process."""

    verb: str
    sandboxes: list[Sandbox] = []
    pin: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` tells which code answers; ``error`` is empty if it was done."""

    error: str = ""
    version: str = ""


@cache
def version() -> str:
    """What tells the code of one resolver from that of another."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
