"""tar headers: ustar, GNU and pax (POSIX.1-2024 pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").

Fields only: what a header says, not what it means for a tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from lamina.layer.errors import InvalidLayer

BLOCK = 512
_PAX_RECORD = re.compile(rb"(\d{1,10}) ([^=]+)=")
_OCTAL = re.compile(rb"[0-7]*")
_DECIMAL = re.compile(rb"\d{1,19}")
_LARGEST = (1 << 63) - 1
_XATTR = b"SCHILY.xattr."
_INTEGERS = (
    b"size",
    b"uid",
    b"gid",
    b"GNU.sparse.size",
    b"GNU.sparse.realsize",
    b"SCHILY.devmajor",
    b"SCHILY.devminor",
)


@dataclass
class Extended:
    """What pax and GNU records say about the entry that follows them."""

    path: bytes | None = None
    link: bytes | None = None
    numbers: dict[bytes, int] = field(default_factory=dict)
    mtime_ns: int | None = None
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse_map: bytes | None = None
    sparse_version: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """One header block as it stands. ``size`` is the length of the data behind it in bytes."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    kind: bytes
    link: bytes
    major: int
    minor: int


def is_header(block: bytes) -> bool:
    """Whether bytes begin with a tar header: their checksum says so."""
    try:
        checksum = number(block[148:156])
    except (InvalidLayer, IndexError):
        return False
    if len(block) < BLOCK:
        return False
    # some old writers summed signed bytes
    signed = sum(b - 256 if b > 127 else b for b in block[:148] + block[156:]) + 256
    return checksum in (sum(block) - sum(block[148:156]) + 256, signed)


def parse_header(block: bytes) -> Header:
    """Read a 512-byte header. Raises InvalidLayer if its checksum or a number is wrong."""
    if sum(block) - sum(block[148:156]) + 256 != number(block[148:156]) and not is_header(block):
        raise InvalidLayer("bad header checksum", printable(text(block[:100])))
    name = text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = text(block[345:500]) + b"/" + name
    size = number(block[124:136])
    if size < 0:
        raise InvalidLayer("negative size", printable(name))
    kind = block[156:157]
    is_device = kind in (b"3", b"4")
    return Header(
        name,
        number(block[100:108]),
        number(block[108:116]),
        number(block[116:124]),
        size,
        number(block[136:148]),
        kind,
        text(block[157:257]),
        number(block[329:337]) if is_device else 0,
        number(block[337:345]) if is_device else 0,
    )


def text(raw: bytes) -> bytes:
    """A field up to its NUL."""
    return raw.partition(b"\0")[0]


def printable(name: bytes) -> str:
    """An entry's name for a message."""
    return name.decode("utf-8", "backslashreplace")[:300]


def number(raw: bytes) -> int:
    """A numeric field: octal digits, or GNU's base-256 where the first bit is set, of 64 bits at most. Raises InvalidLayer."""
    if raw[0] & 0x80:
        value = int.from_bytes(raw, "big")
        bits = len(raw) * 8
        value = value - (1 << bits) if raw[0] & 0x40 else value & ~(1 << (bits - 1))
        if not -_LARGEST <= value <= _LARGEST:
            raise InvalidLayer("a number in a header is out of range")
        return value
    # what stands behind a NUL is not part of the field
    digits = raw.strip(b" \0").partition(b"\0")[0]
    if not _OCTAL.fullmatch(digits):
        raise InvalidLayer(f"bad number {raw!r} in a header")
    return int(digits or b"0", 8)


def decimal(value: bytes, place: str) -> int:
    """A number that is written out, of 64 bits at most; *place* is for the message. Raises InvalidLayer."""
    if not _DECIMAL.fullmatch(value) or int(value) > _LARGEST:
        raise InvalidLayer(f"bad number {value[:40]!r} in {place}")
    return int(value)


def parse_pax(body: bytes, extended: Extended) -> None:
    """Add the records of a pax header ("%d %s=%s\\n") to *extended*. Raises InvalidLayer."""
    position = 0
    pieces: list[bytes] = []
    while position < len(body) and body[position]:
        match = _PAX_RECORD.match(body, position)
        end = position + int(match.group(1)) if match else 0
        if match is None or end > len(body) or end <= match.end() or body[end - 1] != 0x0A:
            raise InvalidLayer("malformed pax header")
        _take_record(match.group(2), body[match.end() : end - 1], extended, pieces)
        position = end
    if pieces:
        extended.sparse_map = b",".join(pieces)


def _take_record(key: bytes, value: bytes, extended: Extended, pieces: list[bytes]) -> None:
    if not value and not key.startswith(_XATTR):
        return  # an empty value unsets what no header before this one has set
    if key == b"path" or key == b"GNU.sparse.name":
        if extended.path is None or key == b"GNU.sparse.name" or extended.sparse_version is None:
            extended.path = value
    elif key == b"linkpath":
        extended.link = value
    elif key == b"mtime":
        extended.mtime_ns = _nanoseconds(value)
    elif key in _INTEGERS:
        extended.numbers[key] = decimal(value, "a pax header")
    elif key.startswith(_XATTR):
        extended.xattrs[key[len(_XATTR) :]] = value
    elif key.startswith(b"GNU.sparse."):
        _take_sparse(key[11:], value, extended, pieces)


def _take_sparse(key: bytes, value: bytes, extended: Extended, pieces: list[bytes]) -> None:
    if key == b"map":
        extended.sparse_map = value
    elif key in (b"offset", b"numbytes"):
        pieces.append(value)
    elif key in (b"major", b"minor"):
        major, minor = extended.sparse_version or (0, 0)
        extended.sparse_version = (
            (decimal(value, "a pax header"), minor) if key == b"major" else (major, decimal(value, "a pax header"))
        )


def _nanoseconds(value: bytes) -> int:
    """A decimal time with any number of digits, exactly."""
    whole, _, fraction = value.partition(b".")
    if not re.fullmatch(rb"-?\d{1,18}", whole) or not re.fullmatch(rb"\d*", fraction):
        raise InvalidLayer(f"bad time {value[:40]!r} in a pax header")
    nanoseconds = int((fraction + b"000000000")[:9])
    return int(whole) * 1_000_000_000 + (-nanoseconds if whole.startswith(b"-") else nanoseconds)
