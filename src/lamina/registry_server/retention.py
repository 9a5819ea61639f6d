"""Which tags are kept, and how much a repository may hold.

A file of policies is TOML; the first one whose pattern fits a repository counts for it::

    [[policy]]
    repositories = ["ci/**"]
    tags = ["pr-*"]                 # which tags may go; all if it is left out
    keep_last = 10                  # the newest ones that stay
    keep_days = 30.0                # and those that are younger
    remove_untagged = true          # manifests that no tag, index or subject leads to, older than a day
    quota = 10_000_000_000          # bytes that a repository's blobs may have together

A tag goes if it is neither among the last ones nor young; with neither of the two, none goes.
"""

from __future__ import annotations

import re
import sqlite3
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import InvalidArgument
from lamina.registry_server.rules import as_expression
from lamina.state import Database

_DAY_S = 86400.0
_FIELDS = {
    "repositories": list,
    "tags": list,
    "keep_last": int,
    "keep_days": (int, float),
    "remove_untagged": bool,
    "quota": int,
}


class InvalidPolicies(InvalidArgument):
    """A file of policies makes no sense."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


@dataclass(frozen=True)
class Policy:
    """What counts for some repositories; None is no limit."""

    repositories: tuple[re.Pattern[str], ...]
    tags: tuple[re.Pattern[str], ...]
    keep_last: int | None = None
    keep_days: float | None = None
    remove_untagged: bool = False
    quota: int | None = None

    def goes(self, tags: Sequence[tuple[str, int]], now_s: float) -> list[str]:
        """Of (name, when it was pushed, in nanoseconds) those that go."""
        if self.keep_last is None and self.keep_days is None:
            return []
        meant = [tag for tag in tags if any(pattern.fullmatch(tag[0]) for pattern in self.tags)]
        newest = sorted(meant, key=lambda tag: (-tag[1], tag[0]))
        oldest_ns = int((now_s - (self.keep_days or 0) * _DAY_S) * 1e9)
        late = newest[self.keep_last or 0 :]
        return [name for name, pushed_ns in late if self.keep_days is None or pushed_ns < oldest_ns]


@dataclass(frozen=True)
class Policies:
    """All policies."""

    policies: Sequence[Policy] = ()

    def of(self, repository: str) -> Policy | None:
        """The one that counts for a repository."""
        return next((p for p in self.policies if any(r.fullmatch(repository) for r in p.repositories)), None)

    @classmethod
    def read(cls, path: Path) -> Policies:
        """Read a file. Raises InvalidPolicies."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidPolicies(path, str(error)) from None
        entries = document.get("policy", [])
        if set(document) - {"policy"} or not isinstance(entries, list):
            raise InvalidPolicies(path, "only [[policy]] may stand there")
        return cls([_policy(path, number, entry) for number, entry in enumerate(entries, 1)])


def _policy(path: Path, number: int, entry: Any) -> Policy:
    if not isinstance(entry, dict) or "repositories" not in entry:
        raise InvalidPolicies(path, f"policy {number} names no repositories")
    for name, value in entry.items():
        kind = _FIELDS.get(name)
        if kind is None:
            raise InvalidPolicies(path, f"policy {number}: unknown key {name!r}")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):  # type: ignore[arg-type]
            raise InvalidPolicies(path, f"policy {number}: {name} cannot be {value!r}")
    patterns = {
        name: tuple(re.compile(as_expression(str(text))) for text in entry.get(name, ["**"]))
        for name in ("repositories", "tags")
    }
    return Policy(
        patterns["repositories"],
        patterns["tags"],
        entry.get("keep_last"),
        entry.get("keep_days"),
        entry.get("remove_untagged", False),
        entry.get("quota"),
    )


async def retain(database: Database, policies: Policies, *, dry_run: bool = False) -> list[str]:
    """Remove what no policy keeps, or only tell it; returns ``repository:tag`` and ``repository@digest``."""
    now_s = time.time()

    def write(connection: sqlite3.Connection) -> list[str]:
        gone = []
        for row in connection.execute("SELECT id, name FROM repository ORDER BY name").fetchall():
            policy = policies.of(row["name"])
            if policy is not None:
                gone += _retain_in(connection, row["id"], row["name"], policy, now_s)
        if dry_run:
            raise _OnlyTold(gone)
        return gone

    try:
        return await database.write(write, frees=True)
    except _OnlyTold as told:
        return told.gone


class _OnlyTold(Exception):
    """The transaction is undone, and this is what would have gone."""

    def __init__(self, gone: list[str]) -> None:
        super().__init__()
        self.gone = gone


def _retain_in(connection: sqlite3.Connection, repository: int, name: str, policy: Policy, now_s: float) -> list[str]:
    tags = connection.execute("SELECT name, updated_ns FROM tag WHERE repository = ?", (repository,)).fetchall()
    going = policy.goes([(row["name"], row["updated_ns"]) for row in tags], now_s)
    connection.executemany("DELETE FROM tag WHERE repository = ? AND name = ?", [(repository, tag) for tag in going])
    gone = [f"{name}:{tag}" for tag in going]
    while policy.remove_untagged:
        # an index's manifests are free when it is gone, and so is what refers to a manifest
        rows = connection.execute(
            "SELECT digest FROM manifest AS m WHERE repository = ? AND pushed_s < ? "
            "AND NOT EXISTS (SELECT 1 FROM tag WHERE tag.repository = m.repository AND tag.digest = m.digest) "
            "AND NOT EXISTS (SELECT 1 FROM need WHERE need.repository = m.repository AND need.digest = m.digest) "
            "AND (subject IS NULL OR NOT EXISTS (SELECT 1 FROM manifest AS s WHERE s.repository = m.repository "
            "AND s.digest = m.subject))",
            (repository, int(now_s - _DAY_S)),
        ).fetchall()
        if not rows:
            break
        digests = [(repository, row["digest"]) for row in rows]
        connection.executemany("DELETE FROM manifest WHERE repository = ? AND digest = ?", digests)
        gone += [f"{name}@{digest}" for _, digest in digests]
    return gone
