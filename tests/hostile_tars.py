"""Tars made block by block: what no library would write."""

from __future__ import annotations

from lamina.layer.scan import Limits, Scanner
from lamina.layer.tree import LayerTree

END = bytes(1024)


def header(name: bytes, size: int = 0, kind: bytes = b"0", link: bytes = b"", **fields: tuple[int, bytes]) -> bytes:
    """A ustar header; *fields* are (offset, bytes) to put over it."""
    block = bytearray(512)
    block[0 : len(name[:100])] = name[:100]
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % size, b"07346545000\0"
    block[156:157], block[157 : 157 + len(link)] = kind, link
    block[257:265] = b"ustar  \0" if kind == b"S" else b"ustar\x0000"
    for at, value in fields.values():
        block[at : at + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def regular(name: bytes, data: bytes = b"", **fields: tuple[int, bytes]) -> bytes:
    return header(name, len(data), b"0", b"", **fields) + padded(data)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    body = b"".join(_record(key, value) for key, value in records)
    return header(b"PaxHeaders/x", len(body), kind) + padded(body)


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length += len(str(length)) - len(str(rest))
    return b"%d %s=%s\n" % (length, key, value)


def sparse(name: bytes, real_size: int, pairs: list[tuple[int, int]], data: bytes) -> bytes:
    """A pax 1.0 sparse file."""
    text = b"".join(b"%d\n" % n for n in (len(pairs), *(n for pair in pairs for n in pair)))
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", name))
    body = padded(text) + data
    return pax(*records, (b"GNU.sparse.realsize", b"%d" % real_size)) + regular(b"GNUSparseFile.0/x", body)


def scanned(*parts: bytes, limits: Limits | None = None, step: int = 1 << 20) -> LayerTree:
    """The tree of a tar that is fed in pieces."""
    data = b"".join(parts)
    scanner = Scanner(limits or Limits())
    for start in range(0, len(data), step):
        scanner.feed(data[start : start + step])
    return scanner.finish()
