"""Which images to show: docker's filters over the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lamina.dockerfile.ignore import InvalidPattern as InvalidWildcard
from lamina.dockerfile.ignore import match_wildcard
from lamina.errors import InvalidArgument
from lamina.image.store import Image, ImageStore
from lamina.oci.reference import Reference


class InvalidPattern(InvalidArgument):
    """A pattern for names is none."""

    def __init__(self) -> None:
        super().__init__("syntax error in pattern")


@dataclass(frozen=True)
class ImageQuery:
    """What to list. ``labels`` are ``key`` or ``key=value``; ``before`` and ``since`` name images; ``until_ns`` is Unix time."""

    include_intermediate: bool = False
    dangling: bool | None = None
    labels: Sequence[str] = ()
    without_labels: Sequence[str] = ()
    references: Sequence[str] = ()
    before: str | None = None
    since: str | None = None
    until_ns: int | None = None


@dataclass(frozen=True)
class Listed:
    """An image that a query found, with those of its names that it asked for."""

    image: Image
    names: tuple[Reference, ...] = field(default=())
    digests: tuple[Reference, ...] = field(default=())


def select_images(images: ImageStore, query: ImageQuery) -> list[Listed]:
    """The images that match, the newest first: by the time that they were made, wherever they were loaded from.

    Raises ImageNotFound if ``before`` or ``since`` names none, or InvalidPattern.
    """
    before_ns = images.find(query.before).config.created_ns if query.before else None
    since_ns = images.find(query.since).config.created_ns if query.since else None
    chosen = []
    for image in images:
        labels, created_ns = image.config.run.labels or {}, image.config.created_ns
        names, digests = (
            tuple(name for name in all_names if _matches(name, query.references))
            for all_names in (images.names(image.image_id), images.digests(image.image_id))
        )
        if (
            _is_shown(image, images, query)
            and has_labels(labels, query.labels)
            and not any(has_labels(labels, [label]) for label in query.without_labels)
            and (before_ns is None or created_ns < before_ns)
            and (since_ns is None or created_ns > since_ns)
            and (query.until_ns is None or created_ns <= query.until_ns)
            and (names or digests or not query.references)
        ):
            chosen.append(Listed(image, names, digests))
    return sorted(chosen, key=lambda item: (item.image.config.created_ns, item.image.added_ns), reverse=True)


def has_labels(labels: dict[str, str], wanted: Sequence[str]) -> bool:
    """Whether all of *wanted*, each ``key`` or ``key=value``, hold."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _is_shown(image: Image, images: ImageStore, query: ImageQuery) -> bool:
    """An untagged image that others were built from is intermediate, any other untagged one dangling."""
    if images.names(image.image_id) or images.digests(image.image_id):
        return query.dangling is not True
    intermediate = bool(images.children(image.image_id))
    if query.dangling is not None:
        return query.dangling and not intermediate
    return query.include_intermediate or not intermediate


def _matches(name: Reference, patterns: Sequence[str]) -> bool:
    """docker matches the short form of a name, with its tag and without; stars do not match slashes."""
    forms = (name.familiar, name.familiar_repository)
    try:
        return not patterns or any(match_wildcard(pattern, form) for pattern in patterns for form in forms)
    except InvalidWildcard:
        raise InvalidPattern from None
