"""``--chmod``: a mode in octal, or in chmod(1)'s symbols (Dockerfile reference, "COPY --chown --chmod")."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

from lamina.dockerfile.errors import DockerfileError

_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXstugo]*)+)")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}


@dataclass(frozen=True)
class ModeChange:
    """How a file's permission bits become others."""

    text: str
    change: Callable[[int], int]

    @classmethod
    def parse(cls, text: str) -> ModeChange:
        """Read ``755``, ``0o644``-like octal or ``u=rwX,go=rX``. Raises DockerfileError."""
        if re.fullmatch("[0-7]{1,4}", text):
            bits = int(text, 8)
            return cls(text, lambda mode: bits)
        clauses = [_CLAUSE.fullmatch(part) for part in text.split(",")]
        if not text or not all(clauses):
            raise DockerfileError(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777, or symbolic"
            )
        actions = [
            (clause[1], sign, what)
            for clause in clauses
            if clause is not None
            for sign, what in _ACTION.findall(clause[2])
        ]

        def change(mode: int) -> int:
            for who, sign, what in actions:
                mode = _changed(mode, who, sign, what)
            return stat.S_IMODE(mode)

        return cls(text, change)

    def apply(self, mode: int) -> int:
        """The new permission bits of a file whose whole st_mode is *mode*."""
        return self.change(mode)


def _changed(mode: int, who: str, sign: str, what: str) -> int:
    whom = "ugo" if not who or "a" in who else who
    mask = sum(_bits(mode, person, what) for person in dict.fromkeys(whom))
    if "t" in what and "o" in whom:
        mask |= stat.S_ISVTX
    if sign == "-":
        return mode & ~mask
    if sign == "=":
        covered = sum(7 << _SHIFTS[person] for person in dict.fromkeys(whom))
        covered |= (stat.S_ISUID if "u" in whom else 0) | (stat.S_ISGID if "g" in whom else 0)
        mode &= ~covered
    return mode | mask


def _bits(mode: int, person: str, what: str) -> int:
    """The bits that symbols mean for one of user, group and others."""
    shift = _SHIFTS[person]
    bits = 0
    for symbol in what:
        if symbol in "rwx":
            bits |= {"r": 4, "w": 2, "x": 1}[symbol] << shift
        elif symbol == "X" and (stat.S_ISDIR(mode) or mode & 0o111):
            bits |= 1 << shift
        elif symbol == "s":
            bits |= {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": 0}[person]
        elif symbol in _SHIFTS:
            bits |= (mode >> _SHIFTS[symbol] & 7) << shift
    return bits
