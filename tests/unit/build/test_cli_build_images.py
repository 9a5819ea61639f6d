"""Which registries a Dockerfile's images come from."""

from __future__ import annotations

from lamina.cli.build_images import registries_of


def test_the_registries_of_all_images_that_a_dockerfile_names_are_found() -> None:
    text = (
        b"ARG HOST=a.example\nARG TAG\nFROM $HOST/x:$TAG AS first\nFROM first AS Second\nFROM scratch\n"
        b"COPY --from=SECOND /a /b\nCOPY --from=0 /a /b\nCOPY --from=c.example:5000/y /a /b\nCOPY f /f\n"
        b"RUN --mount=type=bind,from=d.example/z,target=/z --mount=from=first,target=/f true\n"
    )
    assert registries_of(text, {"TAG": "1"}) == {"a.example", "c.example:5000", "d.example"}
    assert registries_of(text, {"TAG": "1", "HOST": "b.example"}) == {"b.example", "c.example:5000", "d.example"}
    assert registries_of(b"FROM busybox\n", {}) == {"docker.io"}


def test_of_what_cannot_be_read_nothing_is_known() -> None:
    for text in (b"", b"NO\n", b"FROM ${A:?must}\n", b"FROM a b\n"):
        assert registries_of(text, {}) == set()
    assert registries_of(b"FROM $NOPE\nCOPY --from=UPPER/Case /a /b\n", {}) == set()
