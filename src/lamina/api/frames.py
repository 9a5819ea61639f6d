"""Frames of a multiplexed stream (Engine API, "Attach to a container", "Stream format").

Eight bytes before each piece: the stream (0 stdin, 1 stdout, 2 stderr), three zeros, the piece's length in big endian.
"""

from __future__ import annotations

HEADER_BYTES = 8


def encode(stream: int, data: bytes) -> bytes:
    """One frame."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Decoder:
    """Takes bytes in any pieces, gives (stream, piece of its data); a frame may come in several pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The parts that these bytes complete or continue."""
        result = []
        position = 0
        while position < len(data):
            if self._left == 0:
                need = HEADER_BYTES - len(self._header)
                self._header += data[position : position + need]
                position += need
                if len(self._header) < HEADER_BYTES:
                    break
                self._stream = self._header[0]
                self._left = int.from_bytes(self._header[4:], "big")
                self._header = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            result.append((self._stream, piece))
        return result
