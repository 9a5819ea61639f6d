"""Why a step is carried out: what it depends on, compared with the last build of the same Dockerfile and context.

What a step depends on is kept in parts under words that a user knows ("files", "arguments"), of each thing in a part a short hash, so
that the difference can be named and nothing secret is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from lamina.build.copy.plan import CopyItem

_NAMED = 1000
"""A part of more things than this is compared as a whole."""
_SHOWN = 5

Parts = Mapping[str, Mapping[str, str]]
"""By a part's name the hashes of its things by theirs; a thing without a name is the whole part."""


@dataclass(frozen=True)
class StepInputs:
    """What a step depends on: the key of its outcome in the cache, and the same in parts."""

    key: str
    parts: Parts


class BuildMemory:
    """What the steps of the last build depended on, and those of this one, by their places in the Dockerfile."""

    def __init__(self) -> None:
        self._last: dict[str, Parts] = {}
        self._now: dict[str, Parts] = {}

    def recall(self, data: bytes) -> None:
        """Take what ``data`` gave at the end of the last build; what cannot be read counts as nothing."""
        try:
            self._last = msgspec.json.decode(data, type=dict[str, dict[str, dict[str, str]]])
        except msgspec.DecodeError:
            self._last = {}

    def data(self, *, failed: bool) -> bytes:
        """What is to be kept for the next build; of one that failed, also what the last one knew of the steps it did not come to."""
        steps = self._last | self._now if failed else self._now
        return msgspec.json.encode(steps, order="sorted")

    def explain(self, place: str, inputs: StepInputs, *, cached: bool, use_cache: bool) -> str:
        """Why the step at a place was carried out or not; it is remembered for the next build."""
        before, self._now[place] = self._last.get(place), inputs.parts
        if cached:
            return "cached"
        if not use_cache:
            return "the cache is not used"
        if before is None:
            return "no earlier build had this step"
        changes = [_change(name, before.get(name, {}), inputs.parts.get(name, {})) for name in inputs.parts]
        return "; ".join(filter(None, changes)) or "its outcome is no longer kept"


def whole(text: str) -> dict[str, str]:
    """A part that is one thing."""
    return {"": _short(text)}


def each(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A part of several things, (name, what it is)."""
    return {name: _short(text) for name, text in pairs}


def files(items: Sequence[CopyItem], digest: str) -> dict[str, str]:
    """The files that a plan writes; *digest* names the plan."""
    if len(items) > _NAMED:
        return whole(digest)
    named = (
        (
            item.path.decode("utf-8", "replace"),
            repr((item.node.mode, item.node.uid, item.node.gid, item.digest, item.text)),
        )
        for item in items
    )
    return {**each(named), **whole(digest)}


def _change(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> str:
    if before == now:
        return ""
    names = sorted(n for n in before.keys() | now.keys() if n and before.get(n) != now.get(n))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{name} changed" + (f": {', '.join(names[:_SHOWN])}{more}" if names else "")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]
