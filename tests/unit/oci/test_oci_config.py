"""Configs and manifests keep what they do not know, and refuse what is wrong by field."""

from __future__ import annotations

import json

import pytest

from lamina.image.mutate import append
from lamina.oci.config import History, ImageConfig
from lamina.oci.descriptor import InvalidDocument, UnsupportedMediaType, layer_compression
from lamina.oci.digest import DiffID, Digest
from lamina.oci.manifest import Manifest


def test_the_image_id_is_the_digest_of_the_bytes_as_they_came() -> None:
    data = b'{ "os":"linux","architecture":"amd64", "x": [1] }'
    assert ImageConfig.parse(data).image_id == Digest.of(data)


def test_a_derived_config_keeps_unknown_fields() -> None:
    data = json.dumps(
        {"architecture": "amd64", "os": "linux", "x.vendor": {"a": 1}, "config": {"Env": ["A=b"], "Vendor": 2}}
    ).encode()
    layer = DiffID(Digest.of(b"layer"))
    derived = append(ImageConfig.parse(data), History(created="2026-01-01T00:00:00Z", created_by="RUN x"), layer=layer)
    assert derived.document["x.vendor"] == {"a": 1}
    assert derived.run_document == {"Env": ["A=b"], "Vendor": 2}
    assert derived.diff_ids == (layer,)
    assert derived.history[-1].created_by == "RUN x"


@pytest.mark.parametrize(
    "document",
    ["", "[]", "{", '{"config":{"Env":3}}', '{"rootfs":{"diff_ids":["x"]}}', '{"history":{}}', "[" * 100_000],
)
def test_a_wrong_config_is_refused(document: str) -> None:
    with pytest.raises(InvalidDocument):
        ImageConfig.parse(document.encode())


@pytest.mark.parametrize(
    "document",
    [
        "{}",
        '{"schemaVersion":1}',
        '{"schemaVersion":2,"config":{"mediaType":"a","digest":"b","size":1},"layers":[]}',
        '{"schemaVersion":2,"config":{"mediaType":"a","digest":"sha256:' + "a" * 64 + '","size":-1},"layers":[]}',
    ],
)
def test_a_wrong_manifest_is_refused(document: str) -> None:
    with pytest.raises(InvalidDocument):
        Manifest.parse(document.encode())


def test_foreign_layers_are_refused() -> None:
    with pytest.raises(UnsupportedMediaType):
        layer_compression("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
