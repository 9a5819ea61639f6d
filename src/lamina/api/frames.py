"""Frames of a multiplexed stream (Engine API, "Attach to a container", "Stream format").

Eight bytes before each piece: the stream (0 stdin, 1 stdout, 2 stderr), three zeros, the piece's length in big endian.
"""

from __future__ import annotations

from lamina.errors import InvalidArgument

HEADER_BYTES = 8
_LAST_STREAM = 3  # docker's own channel for errors of the daemon


class MalformedFrame(InvalidArgument):
    """Bytes that should begin a frame do not."""

    def __init__(self, header: bytes) -> None:
        super().__init__(f"malformed stream: {header.hex(' ')} begins no frame")
        self.header = header


def encode(stream: int, data: bytes) -> bytes:
    """One frame."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


class Decoder:
    """Takes bytes in any pieces, gives (stream, piece of its data); a frame may come in several pieces."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether all frames that began have ended, so that nothing is missing if no more bytes come."""
        return not self._header and not self._left

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The parts that these bytes complete or continue. Raises MalformedFrame."""
        result = []
        position = 0
        while position < len(data):
            if self._left == 0:
                need = HEADER_BYTES - len(self._header)
                self._header += data[position : position + need]
                position += need
                if len(self._header) == HEADER_BYTES:
                    self._begin_frame(self._header)
                    self._header = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            result.append((self._stream, piece))
        return result

    def _begin_frame(self, header: bytes) -> None:
        if header[0] > _LAST_STREAM or any(header[1:4]):
            raise MalformedFrame(header)
        self._stream = header[0]
        self._left = int.from_bytes(header[4:], "big")
