"""Manifests and indexes: told apart, and chosen by platform."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lamina.oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, InvalidDocument
from lamina.oci.digest import Digest
from lamina.oci.manifest import Index, Manifest, parse_document
from lamina.oci.platform import Platform

ENTRY = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(b"x")), "size": 1}
MANIFEST = {"schemaVersion": 2, "config": ENTRY, "layers": []}
INDEX = {"schemaVersion": 2, "manifests": [ENTRY]}


def index(*platforms: str | None) -> Index:
    """An index with an entry for each platform, None for one that tells none; an entry's size is its number."""
    entries: list[dict[str, Any]] = []
    for number, text in enumerate(platforms):
        names = zip(("os", "architecture", "variant"), text.split("/") if text else (), strict=False)
        entries.append({**ENTRY, "size": number} | ({"platform": dict(names)} if text else {}))
    return Index.parse(json.dumps(INDEX | {"manifests": entries}).encode())


@pytest.mark.parametrize(
    ("document", "told", "kind", "media_type"),
    [
        (MANIFEST, "", Manifest, OCI_MANIFEST),
        (MANIFEST, "application/json", Manifest, OCI_MANIFEST),
        (MANIFEST, DOCKER_MANIFEST, Manifest, DOCKER_MANIFEST),
        (MANIFEST, OCI_INDEX, Manifest, OCI_MANIFEST),
        (MANIFEST | {"mediaType": DOCKER_MANIFEST}, OCI_MANIFEST, Manifest, DOCKER_MANIFEST),
        (INDEX, "application/json", Index, OCI_INDEX),
        (INDEX | {"mediaType": DOCKER_LIST}, OCI_MANIFEST, Index, DOCKER_LIST),
    ],
)
def test_a_document_is_what_it_says_it_is(
    document: dict[str, Any], told: str, kind: type[Manifest | Index], media_type: str
) -> None:
    found = parse_document(json.dumps(document).encode(), told)
    assert isinstance(found, kind)
    assert found.media_type == media_type


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{", json.dumps(MANIFEST | INDEX).encode(), b"[" * 100_000])
def test_a_document_that_is_neither_or_both_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidDocument):
        parse_document(data)


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", [1]),
        (["linux/arm64/v8"], "linux/arm64", [0]),
        (["linux/arm/v5", "linux/arm/v7", "linux/arm/v6"], "linux/arm/v7", [1, 2, 0]),
        (["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6", [1]),
        (["windows/amd64", None], "linux/amd64", [1]),
        ([None, "linux/amd64"], "linux/amd64", [1, 0]),
        (["linux/386"], "linux/amd64", []),
    ],
)
def test_what_serves_on_a_platform_is_found_the_best_first(
    offered: list[str | None], wanted: str, expected: list[int]
) -> None:
    found = index(*offered).for_platform(Platform.parse(wanted))
    assert [entry.size for entry in found] == expected
