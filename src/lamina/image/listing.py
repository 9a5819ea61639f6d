"""Which images to show: docker's filters over the store."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.image.store import Image, ImageStore
from lamina.oci.reference import Reference


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


def select_images(images: ImageStore, query: ImageQuery) -> list[Image]:
    """The images that match, the newest first. Raises ImageNotFound if ``before`` or ``since`` names none."""
    before_ns = images.find(query.before).added_ns if query.before else None
    since_ns = images.find(query.since).added_ns if query.since else None
    chosen = [
        image
        for image in images
        if _is_shown(image, images, query)
        and has_labels(image.config.run.labels or {}, query.labels)
        and not any(has_labels(image.config.run.labels or {}, [label]) for label in query.without_labels)
        and (before_ns is None or image.added_ns < before_ns)
        and (since_ns is None or image.added_ns > since_ns)
        and (query.until_ns is None or image.added_ns < query.until_ns)
        and (not query.references or any(_matches(n, query.references) for n in images.names(image.image_id)))
    ]
    return sorted(chosen, key=lambda i: i.added_ns, reverse=True)


def has_labels(labels: dict[str, str], wanted: Sequence[str]) -> bool:
    """Whether all of *wanted*, each ``key`` or ``key=value``, hold."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def _is_shown(image: Image, images: ImageStore, query: ImageQuery) -> bool:
    """An untagged image that others were built from is intermediate, any other untagged one dangling."""
    if images.names(image.image_id):
        return query.dangling is not True
    intermediate = bool(images.children(image.image_id))
    if query.dangling is not None:
        return query.dangling and not intermediate
    return query.include_intermediate or not intermediate


def _matches(name: Reference, patterns: Sequence[str]) -> bool:
    """docker matches a pattern against the short form with its tag, and without it if the pattern has none."""
    forms = (name.familiar, name.familiar_repository, str(name), name.repository)
    return any(fnmatch.fnmatchcase(form, pattern) for form in forms for pattern in patterns)
