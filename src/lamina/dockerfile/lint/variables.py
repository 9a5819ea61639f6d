"""Variables while lint looks at them: which were asked for, and which one was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from lamina.dockerfile.instructions import Arg
from lamina.dockerfile.words import expand_word

_NEAR = 2  # changes of one character that still pass as a slip
_LONGEST, _MOST = 100, 100  # characters and names that are compared: a Dockerfile may have hostile many of both


class Lookups(Mapping[str, str]):
    """Variables that remember who was asked for: *found* and *missing*, each name once and in order."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.found: dict[str, None] = {}
        self.missing: dict[str, None] = {}

    def __getitem__(self, name: str) -> str:
        is_known = name in self._values
        (self.found if is_known else self.missing).setdefault(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def global_values(
    args: Sequence[Arg], predefined: Mapping[str, str], build_args: Mapping[str, str], escape: str
) -> dict[str, str]:
    """What the arguments before the first FROM have as values, the predefined ones included. Raises DockerfileError."""
    values = dict(predefined)
    for name, default in (pair for arg in args for pair in arg.pairs):
        if name in build_args:
            values[name] = build_args[name]
        elif default is not None:
            values[name] = expand_word(default, values, escape)
    return values


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`` (did you mean X?)`` with the first of the nearest of the *known* names; empty if none is near."""
    candidates = [
        other for other in islice(known, _MOST) if abs(len(other) - len(name)) <= _NEAR and len(name) <= _LONGEST
    ]
    distances = {other: _distance(name, other) for other in candidates}
    nearest = min(distances, key=distances.__getitem__, default="")
    return f" (did you mean {prefix}{nearest}?)" if nearest and distances[nearest] <= _NEAR else ""


def _distance(one: str, other: str) -> int:
    """How many characters have to be changed, added or removed to make one text of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != wanted))
    return row[-1]
