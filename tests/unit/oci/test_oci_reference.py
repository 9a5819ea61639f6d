"""References are read as docker reads them."""

from __future__ import annotations

import pytest

from lamina.oci.digest import DiffID, Digest, InvalidDigest, chain_id
from lamina.oci.reference import InvalidReference, Reference

SHA = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("me/app:1", "docker.io/me/app:1", "me/app:1"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("host.com:5000/a/b:v1.2_3-x", "host.com:5000/a/b:v1.2_3-x", "host.com:5000/a/b:v1.2_3-x"),
        ("index.docker.io/library/x", "docker.io/library/x:latest", "x:latest"),
        (f"busybox@{SHA}", f"docker.io/library/busybox@{SHA}", f"busybox@{SHA}"),
        (f"a:1@{SHA}", f"docker.io/library/a:1@{SHA}", f"a:1@{SHA}"),
    ],
)
def test_short_names_are_completed_and_shortened_again(text: str, full: str, familiar: str) -> None:
    reference = Reference.parse_tagged(text)
    assert (str(reference), reference.familiar) == (full, familiar)
    assert Reference.parse(full) == reference


@pytest.mark.parametrize(
    "text", ["", "Busybox", "a//b", "-a", "a:", ":a", "a:b:c", "a@sha256:1", "a b", "a:" + "t" * 129, "a" * 64, "../a"]
)
def test_what_docker_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        Reference.parse(text)


def test_upper_case_is_named_as_the_reason() -> None:
    with pytest.raises(
        InvalidReference,
        match=r"repository name \(library/BusyBox\) must be lowercase|repository name \(BusyBox\) must be lowercase",
    ):
        Reference.parse("BusyBox")


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 63, "sha256:" + "a" * 64 + "\n"]
)
def test_a_malformed_digest_is_refused(text: str) -> None:
    with pytest.raises(InvalidDigest):
        Digest.parse(text)


def test_the_chain_id_of_one_layer_is_its_diff_id() -> None:
    one, two = DiffID(Digest.of(b"1")), DiffID(Digest.of(b"2"))
    assert str(chain_id([one])) == str(one)
    assert str(chain_id([one, two])) == Digest.of(f"{one} {two}".encode())
    assert chain_id([]) is None
