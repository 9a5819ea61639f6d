"""The keys that detach a terminal: for the daemon, which watches what a client sends, and for a client that watches its own terminal.

On its own, as a client imports nothing else of this package.
"""

from __future__ import annotations

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


class DetachKeys:
    """Finds the key sequence that detaches a terminal, in input that may arrive in any pieces."""

    def __init__(self, keys: str | None) -> None:
        self._sequence = parse_detach_keys(keys or DEFAULT_DETACH_KEYS)
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of the input is for the process, and whether the whole sequence was typed."""
        passed = bytearray()
        for position in range(len(data)):
            byte = data[position]
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self._matched = 0
                    return bytes(passed), True
                continue
            passed += self._sequence[: self._matched]
            self._matched = 1 if byte == self._sequence[0] else 0
            if not self._matched:
                passed.append(byte)
        return bytes(passed), False


def parse_detach_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,b`` as the bytes that a terminal sends. Raises ValueError."""
    result = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            result += key.encode()
        elif key == "DEL":
            result.append(127)
        elif key.startswith("ctrl-") and len(key) == 6 and key[5].lower() in "@abcdefghijklmnopqrstuvwxyz[\\]^_":
            result.append(ord(key[5].upper()) & 0x1F)
        else:
            raise ValueError(f"Unknown character: '{key}'")
    return bytes(result)
