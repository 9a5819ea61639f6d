"""Blobs are wholly there and matching, or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lamina.content import BlobDamaged, BlobNotFound, ContentStore, DigestMismatch
from lamina.oci.digest import Digest


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    made = ContentStore(tmp_path / "content")
    made.open()
    return made


def test_it_is_an_oci_layout(store: ContentStore) -> None:
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads((store.root / "index.json").read_text())["schemaVersion"] == 2


def test_what_is_put_is_read_by_its_digest_and_twice_is_no_error(store: ContentStore) -> None:
    digest = store.put(b"data")
    assert store.put(b"data") == digest == Digest.of(b"data")
    assert store.read(digest) == b"data"


def test_a_wrong_digest_stores_nothing(store: ContentStore) -> None:
    with pytest.raises(DigestMismatch):
        store.put(b"data", expected=Digest.of(b"other"))
    assert list(store.digests()) == []


async def test_damage_is_found_on_reading_and_on_demand(store: ContentStore) -> None:
    digest = store.put(b"data")
    store.path(digest).chmod(0o600)
    store.path(digest).write_bytes(b"dada")
    with pytest.raises(BlobDamaged):
        store.read(digest)
    with pytest.raises(BlobDamaged):
        await store.verify(digest)
    with pytest.raises(BlobNotFound):
        await store.verify(Digest.of(b"never"))


def test_a_leased_blob_is_not_deleted(store: ContentStore) -> None:
    digest = store.put(b"data")
    with store.lease([digest]):
        assert store.delete(digest) == 0
        assert store.exists(digest)
    assert store.delete(digest) == 4
    assert not store.exists(digest)


def test_unfinished_blobs_are_gone_after_opening_again(store: ContentStore) -> None:
    store.temporary_path().write_bytes(b"half")
    store.open()
    assert list((store.root / "ingest").iterdir()) == []
