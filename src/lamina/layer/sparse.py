"""Sparse files: the maps that tars have of them, the extents that trees keep, the chunks that an index shows them in.

An index shows a sparse file as chunks of one size, a power of two: each a hole, a run of blocks in the tar, or, where the tar's bytes
lie across blocks or holes and bytes share a chunk, a copy in the index itself. The size of the chunks is chosen so that table and
copies together are small. A file whose last bytes lie in a tar's last block is shown like this too if that block is not whole, since
the kernel reads whole blocks only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lamina.layer.errors import InvalidLayer
from lamina.layer.headers import BLOCK, decimal, number
from lamina.layer.tree import Extents

MAXIMUM_MAP_BYTES = 4 << 20
MAXIMUM_FILE_BYTES = 1 << 44
"""What ext4 can hold; a larger file could not be shown by both drivers."""

CHUNK_ENTRY_BYTES = 8
HOLE, COPY = -1, -2
"""In the place of an offset in the tar."""

_SMALLEST_BITS, _LARGEST_BITS = 9, 40
_CHEAP_TABLE_BYTES = 64 << 10
_MISALIGNED = 1 << 62
_NO_END = 1 << 63


@dataclass(frozen=True)
class SparseMap:
    """What was found before an entry's data: offset/length pairs, the file's real size, the data's place."""

    pairs: Sequence[int]
    real_size: int
    data_at: int


def read_gnu_map(data: bytes, start: int) -> SparseMap | None:
    """The old GNU map in the header at *start* and its extension blocks; None if more of them must be seen first."""
    block = data[start : start + BLOCK]
    pairs = _pairs(block[386:482])
    extended, body = block[482], start + BLOCK
    while extended:
        if body - start > MAXIMUM_MAP_BYTES:
            raise InvalidLayer("sparse map is too long")
        if body + BLOCK > len(data):
            return None
        more = data[body : body + BLOCK]
        pairs += _pairs(more[:504])
        extended = more[504]
        body += BLOCK
    return SparseMap(pairs, number(block[483:495]), body)


def read_pax_map(data: bytes, start: int, size: int, real_size: int) -> SparseMap | None:
    """The lines of a pax 1.0 map before a file's data at *start*; *size* is the length of both."""
    numbers: list[int] = []
    position = start
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        end = data.find(b"\n", position, min(len(data), start + size))
        if end < 0:
            if len(data) >= start + min(size, MAXIMUM_MAP_BYTES):
                raise InvalidLayer("malformed sparse map")
            return None
        numbers.append(decimal(data[position:end], "a sparse map"))
        position = end + 1
    return SparseMap(numbers[1:], real_size, start + (position - start + BLOCK - 1) // BLOCK * BLOCK)


def read_pax_pairs(text: bytes) -> list[int]:
    """The map of pax 0.0 and 0.1, which stands in the header."""
    return [decimal(n, "a sparse map") for n in text.split(b",")]


def extents_of(pairs: Sequence[int], data_offset: int, data_size: int, real_size: int) -> Extents:
    """Offset/length pairs as extents whose bytes lie one after another from *data_offset* in the tar, *data_size* of them at most.

    Raises InvalidLayer if they overlap, leave the file or want more data than there is.
    """
    if len(pairs) % 2 or not 0 <= real_size <= MAXIMUM_FILE_BYTES:
        raise InvalidLayer("malformed sparse map")
    result: list[tuple[int, int, int]] = []
    position, last_end = data_offset, 0
    for offset, length in zip(pairs[::2], pairs[1::2], strict=True):
        if offset < last_end or length < 0 or offset + length > real_size:
            raise InvalidLayer("malformed sparse map")
        if length and result and sum(result[-1][:2]) == offset:
            first, so_far, begin = result[-1]
            result[-1] = (first, so_far + length, begin)
        elif length:
            result.append((offset, length, position))
        position += length
        last_end = offset + length
    if position - data_offset > data_size:
        raise InvalidLayer("sparse map asks for more data than the entry has")
    return tuple(result)


@dataclass(frozen=True)
class Chunks:
    """How an index shows a sparse file: chunks of ``1 << bits`` bytes, ``count`` of them, those in ``copied`` as copies."""

    size: int
    extents: Extents
    bits: int
    copied: tuple[int, ...]
    whole_end: int = _NO_END

    @property
    def count(self) -> int:
        """How many chunks the file has."""
        return -(-self.size >> self.bits)

    @property
    def index_bytes(self) -> int:
        """What the file costs in the index: its table and the space of the copies."""
        return self.count * CHUNK_ENTRY_BYTES + (len(self.copied) << self.bits)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Neighbouring chunks of a kind, in order: (how many, where the first one's bytes lie in the tar, or HOLE or COPY)."""
        pieces = [(chunk, 1, COPY) for chunk in self.copied]
        for extent in self.extents:
            offset, length, position = extent
            first, behind = offset >> self.bits, -(-(offset + length) >> self.bits)
            parts = _partly_covered(extent, self.size, self.bits, self.whole_end)
            first, behind = first + (first in parts), behind - (behind - 1 in parts)
            if not (position - offset) % BLOCK and first < behind:
                pieces.append((first, behind - first, position - offset + (first << self.bits)))
        done = 0
        for first, count, where in sorted(pieces):
            if first > done:
                yield first - done, HOLE
            yield count, where
            done = first + count
        if done < self.count:
            yield self.count - done, HOLE

    def copies(self) -> Iterator[tuple[int, int, int]]:
        """What must be copied: (place among the copies, length, offset in the tar)."""
        place = {chunk: number << self.bits for number, chunk in enumerate(self.copied)}
        for offset, length, position in self.extents:
            for chunk in range(offset >> self.bits, -(-(offset + length) >> self.bits)):
                if chunk in place:
                    start = max(offset, chunk << self.bits)
                    end = min(offset + length, chunk + 1 << self.bits)
                    yield place[chunk] + start - (chunk << self.bits), end - start, position + start - offset


def choose_chunks(size: int, extents: Extents, whole_end: int = _NO_END) -> Chunks:
    """The chunks that show a sparse file at the least cost; *whole_end* is where the tar's last whole block ends."""
    largest = max(_SMALLEST_BITS, min((size - 1).bit_length() if size else 0, _LARGEST_BITS))
    bits = min([largest, *(_alignment(extent, size, whole_end) for extent in extents)])
    best = Chunks(size, extents, max(bits, _SMALLEST_BITS), (), whole_end)
    if bits >= _SMALLEST_BITS and best.index_bytes <= _CHEAP_TABLE_BYTES:
        return best
    cost = best.index_bytes if bits >= _SMALLEST_BITS else _MISALIGNED
    for bits in range(_SMALLEST_BITS, largest + 1):
        candidate = Chunks(size, extents, bits, (), whole_end)
        copied = _copied(candidate, cost)
        if copied is not None:
            best = replace(candidate, copied=copied)
            cost = best.index_bytes
    return best


def _copied(chunks: Chunks, limit: int) -> tuple[int, ...] | None:
    """The chunks that must be copied; None if that costs *limit* or more."""
    cost = chunks.index_bytes
    copied: list[int] = []
    for extent in chunks.extents:
        for index in _partly_covered(extent, chunks.size, chunks.bits, chunks.whole_end):
            if not copied or copied[-1] < index:
                copied.append(index)
                cost += 1 << chunks.bits
            if cost >= limit:
                return None
    return tuple(copied) if cost < limit else None


def _partly_covered(extent: tuple[int, int, int], size: int, bits: int, whole_end: int) -> Sequence[int]:
    """The chunks of an extent that a run of the tar's blocks cannot show, ascending."""
    offset, length, position = extent
    end = offset + length
    first, last = offset >> bits, (end - 1) >> bits
    if (position - offset) % BLOCK:
        return range(first, last + 1)
    found = [first] if offset & ((1 << bits) - 1) else []
    shares_last = (end & ((1 << bits) - 1) and end < size) or position + length > whole_end
    if shares_last and found != [last]:
        found.append(last)
    return found


def _alignment(extent: tuple[int, int, int], size: int, whole_end: int) -> int:
    """The largest chunk, as a power of two, that an extent's bounds allow without a copy; 0 if none does."""
    offset, length, position = extent
    if (position - offset) % BLOCK or position + length > whole_end:
        return 0
    bounds = [offset] if offset + length == size else [offset, offset + length]
    return min((b & -b).bit_length() - 1 if b else _LARGEST_BITS for b in bounds)


def _pairs(raw: bytes) -> list[int]:
    pairs = []
    for position in range(0, len(raw), 24):
        if not raw[position]:
            break
        pairs += [number(raw[position : position + 12]), number(raw[position + 12 : position + 24])]
    return pairs
