"""What who may do with which repositories.

A file of rules is TOML; what no rule allows is not allowed::

    [[rule]]
    users = ["alice", "bob"]         # "*": everybody with a name; "anonymous": who gives none
    repositories = ["team/**"]       # "*" fits within a part of a name, "**" over parts
    actions = ["pull", "push", "delete"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lamina.errors import InvalidArgument

Action = Literal["pull", "push", "delete"]
Anonymous = Literal["none", "pull", "push"]
ACTIONS: tuple[Action, ...] = get_args(Action)
_NOBODY = "anonymous"


class InvalidRules(InvalidArgument):
    """A file of rules makes no sense."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


@dataclass(frozen=True)
class Rule:
    """Users may do something with repositories."""

    users: frozenset[str]
    repositories: tuple[re.Pattern[str], ...]
    actions: frozenset[str]

    def allows(self, user: str, action: Action, repository: str) -> bool:
        """Whether this rule does; an empty *user* is nobody."""
        is_meant = user in self.users or "*" in self.users if user else _NOBODY in self.users
        return is_meant and action in self.actions and any(p.fullmatch(repository) for p in self.repositories)


@dataclass(frozen=True)
class Rules:
    """All rules."""

    rules: Sequence[Rule]

    def allow(self, user: str, action: Action, repository: str) -> bool:
        """Whether any rule does."""
        return any(rule.allows(user, action, repository) for rule in self.rules)

    @classmethod
    def simple(cls, anonymous: Anonymous) -> Rules:
        """Who has a name may do everything, who has none what is said."""
        everything = (re.compile(".*"),)
        actions = {"none": frozenset[str](), "pull": frozenset({"pull"}), "push": frozenset(ACTIONS)}[anonymous]
        return cls(
            (Rule(frozenset({"*"}), everything, frozenset(ACTIONS)), Rule(frozenset({_NOBODY}), everything, actions))
        )

    @classmethod
    def read(cls, path: Path) -> Rules:
        """Read a file. Raises InvalidRules."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidRules(path, str(error)) from None
        unknown = set(document) - {"rule"}
        entries = document.get("rule", [])
        if unknown or not isinstance(entries, list):
            raise InvalidRules(path, f"only [[rule]] may stand there, not {', '.join(sorted(unknown)) or 'rule'}")
        return cls([_rule(path, number, entry) for number, entry in enumerate(entries, 1)])


def _rule(path: Path, number: int, entry: Any) -> Rule:
    wanted = ("users", "repositories", "actions")
    if not isinstance(entry, dict) or set(entry) != set(wanted):
        raise InvalidRules(path, f"rule {number} must have users, repositories and actions, and nothing else")
    for name in wanted:
        if not isinstance(entry[name], list) or not all(isinstance(text, str) for text in entry[name]):
            raise InvalidRules(path, f"rule {number}: {name} must be a list of texts")
    unknown = set(entry["actions"]) - set(ACTIONS)
    if unknown:
        raise InvalidRules(path, f"rule {number}: unknown action {min(unknown)!r}: pull, push and delete are known")
    patterns = tuple(re.compile(as_expression(text)) for text in entry["repositories"])
    return Rule(frozenset(entry["users"]), patterns, frozenset(entry["actions"]))


def as_expression(pattern: str) -> str:
    """A pattern of names as a regular expression: ``*`` fits within a part, ``**`` over parts."""
    parts = re.split(r"(\*\*|\*)", pattern)
    return "".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts)
