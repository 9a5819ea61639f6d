"""``# check=``: which rules a Dockerfile wants (Dockerfile reference, "check")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.lint.rules import Rule
from lamina.dockerfile.parser import Dockerfile

BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"  # it stands in for the directive

_ALL = "all"
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("0", "f", "F", "false", "False", "FALSE"), False),
}


@dataclass(frozen=True)
class CheckOptions:
    """``skip=A,B;experimental=C;error=true``; "all" among the names is every rule. An experimental rule is asked for, never skipped."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    is_error: bool = False

    @classmethod
    def of(cls, dockerfile: Dockerfile, build_args: Mapping[str, str]) -> CheckOptions:
        """What the directive says, or the build argument that stands in for it. Raises DockerfileError."""
        return cls.parse(build_args.get(BUILD_ARG, dockerfile.directives.get("check", "")))

    @classmethod
    def parse(cls, text: str) -> CheckOptions:
        """Read the directive's value. Raises DockerfileError."""
        names: dict[str, frozenset[str]] = {}
        is_error = False
        for part in text.strip().split(";", 2) if text.strip() else ():
            key, equals, value = part.partition("=")
            key, value = key.strip(), value.strip()
            if not equals or key not in ("skip", "experimental", "error"):
                raise _invalid(key if equals else part)
            if key != "error":
                names[key] = frozenset(name.strip() for name in value.split(","))
            elif value in _BOOLEANS:
                is_error = _BOOLEANS[value]
            else:
                raise _invalid(part)
        return cls(is_error=is_error, **names)

    def wants(self, rule: Rule) -> bool:
        """Whether a rule is in force."""
        if rule.is_experimental:
            return not self.experimental.isdisjoint((_ALL, rule.name))
        return self.skip.isdisjoint((_ALL, rule.name))


def _invalid(option: str) -> DockerfileError:
    return DockerfileError(f'failed to parse check options: invalid check option "{option}"')
