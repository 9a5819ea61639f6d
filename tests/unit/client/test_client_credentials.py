"""docker's config.json and credential helpers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lamina.client.credentials import auths

HELPER = """#!/bin/sh
read -r name
case "$name" in
    kept.example) printf '{"ServerURL":"%s","Username":"me","Secret":"pass"}' "$name" ;;
    token.example) printf '{"ServerURL":"%s","Username":"<token>","Secret":"lasting"}' "$name" ;;
    *) echo "credentials not found in native keychain"; exit 1 ;;
esac
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    helper = tmp_path / "bin" / "docker-credential-test"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return lambda document: (tmp_path / "config.json").write_text(json.dumps(document))


def test_the_file_s_entries_are_all_taken(write: Any) -> None:
    write(
        {"auths": {"one.example": {"auth": "bWU6cGFzcw=="}, "two.example": {"identitytoken": "t"}, "three.example": {}}}
    )
    assert auths([]) == {"one.example": {"auth": "bWU6cGFzcw=="}, "two.example": {"identitytoken": "t"}}


def test_helpers_are_asked_of_what_the_file_names_and_of_what_is_wanted(write: Any) -> None:
    """docker login leaves an empty entry in the file where a helper keeps what it learned."""
    write({"auths": {"kept.example": {}}, "credsStore": "test"})
    assert auths([]) == {"kept.example": {"username": "me", "password": "pass"}}
    assert auths(["token.example", "nobody.example"])["token.example"] == {"identitytoken": "lasting"}
    assert "nobody.example" not in auths(["nobody.example"])


def test_a_helper_of_one_registry_is_asked_of_it_alone(write: Any) -> None:
    write(
        {
            "auths": {"other.example": {"auth": "eDp5"}},
            "credHelpers": {"kept.example": "test", "gone.example": "nosuch"},
        }
    )
    assert auths([]) == {"other.example": {"auth": "eDp5"}, "kept.example": {"username": "me", "password": "pass"}}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auths": null}'])
def test_a_file_that_cannot_be_read_is_none(write: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert auths(["one.example"]) == {}
