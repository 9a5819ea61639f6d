"""The ``filters`` query parameter: ``{"status":["running"]}``, or the older ``{"status":{"running":true}}``."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from lamina.errors import InvalidArgument


class InvalidFilter(InvalidArgument):
    """A filter, or its value, means nothing here."""


class Filters(Mapping[str, tuple[str, ...]]):
    """Filter names and the values that each may have; an item passes a filter if one of the values fits."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self._values = values

    @classmethod
    def parse(cls, text: str | None, accepted: Collection[str]) -> Filters:
        """Read the parameter. Raises InvalidFilter if it is malformed or has a name that is not *accepted*."""
        if not text:
            return cls({})
        try:
            raw = msgspec.json.decode(text, type=dict[str, list[str] | dict[str, bool]])
        except msgspec.DecodeError as error:
            raise InvalidFilter(f"invalid filters: {error}") from None
        unknown = [name for name in raw if name not in accepted]
        if unknown:
            raise InvalidFilter(f"invalid filter '{unknown[0]}'")
        # in the object form docker takes the names, whatever they are mapped to
        return cls({name: tuple(values) for name, values in raw.items()})

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def values_of(self, name: str) -> tuple[str, ...]:
        """The values of a filter, none if it was not given."""
        return self._values.get(name, ())

    def allows(self, name: str, *candidates: str) -> bool:
        """Whether the filter was not given, or one of its values is among *candidates*."""
        values = self._values.get(name)
        return not values or any(c in values for c in candidates)

    def matches(self, name: str, *candidates: str) -> bool:
        """Whether the filter was not given, or one of its values is, or as a pattern is found in, one of *candidates*.

        Patterns are RE2's, as docker's are; one that is malformed is only text.
        """
        values = self._values.get(name)
        if not values or any(v in candidates for v in values):
            return True
        import re2  # not before it is needed: it is large

        options = re2.Options()
        options.log_errors = False
        for value in values:
            try:
                pattern = re2.compile(value, options)
            except re2.error:
                continue
            if any(pattern.search(candidate) for candidate in candidates):
                return True
        return False

    def allows_prefix(self, name: str, *candidates: str) -> bool:
        """Whether the filter was not given, or one of its values begins one of *candidates*."""
        values = self._values.get(name)
        return not values or any(c.startswith(v) for v in values for c in candidates)

    def allows_labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """Whether *labels* have all that the filter asks for: ``key``, or ``key=value``."""
        wanted = (text.partition("=") for text in self.values_of(name))
        return all(key in labels and (not equals or labels[key] == value) for key, equals, value in wanted)

    def boolean(self, name: str) -> bool | None:
        """A filter that is true or false; None if it was not given. Raises InvalidFilter."""
        values = self._values.get(name)
        if not values:
            return None
        if len(set(values)) != 1 or values[0].lower() not in ("1", "true", "0", "false"):
            raise InvalidFilter(f"invalid filter '{name}=[{' '.join(values)}]'")
        return values[0].lower() in ("1", "true")
