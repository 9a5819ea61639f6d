"""Documents are read as Go reads them."""

from __future__ import annotations

import pytest

from lamina.container.config import ContainerConfig, HostConfig, NetworkingConfig
from lamina.http.documents import InvalidDocument, decode, integer


def host(text: str) -> HostConfig:
    return decode(text.encode(), HostConfig)


def test_null_is_as_if_nothing_was_given() -> None:
    assert host(
        '{"Memory": null, "RestartPolicy": null, "Binds": null, "NetworkMode": null, "LogConfig": {"Type": null}}'
    ) == (HostConfig())


def test_null_in_a_map_or_list_is_the_zero_value() -> None:
    config = decode(b'{"Labels": {"a": null}, "Env": [null], "Volumes": {"/x": null}}', ContainerConfig)
    assert (config.labels, config.env, config.volumes) == ({"a": ""}, [""], {"/x": None})
    networking = decode(b'{"EndpointsConfig": {"bridge": null}}', NetworkingConfig)
    assert networking.endpoints_config == {"bridge": None}


def test_names_are_matched_in_any_case() -> None:
    assert host('{"memory": 7, "LOGCONFIG": {"type": "none"}, "blkiodevicereadiops": [{"PATH": "/x"}]}') == (
        host('{"Memory": 7, "LogConfig": {"Type": "none"}, "BlkioDeviceReadIOps": [{"Path": "/x"}]}')
    )
    assert decode(b'{"labels": {"Key": "Value"}, "cmd": "x"}', ContainerConfig).labels == {"Key": "Value"}


@pytest.mark.parametrize(
    "text",
    [
        '{"Memory": 9223372036854775808}',
        '{"Memory": -9223372036854775809}',
        '{"ConsoleSize": [1, 99999999999999999999999]}',
        '{"Memory": 1' + "0" * 5000 + "}",
        '{"Memory": "1"}',
        '{"Binds": {}}',
        '{"Binds": "x"}',
        "[]",
        "{",
        '{"Sysctls":' + '{"a":' * 100_000,
        "[" * 100_000,
    ],
)
def test_what_has_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidDocument):
        host(text)


def test_the_largest_numbers_are_kept() -> None:
    assert host('{"Memory": 9223372036854775807, "OomScoreAdj": -9223372036854775808}').memory == (1 << 63) - 1


@pytest.mark.parametrize("text", ["9" * 5000, "9223372036854775808", "x", ""])
def test_a_parameter_that_is_no_number_of_64_bits_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"out of range|invalid literal"):
        integer(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (rb"\ud800x", "\ufffdx"),
        (rb"\udc00", "\ufffd"),
        (rb"\ud800\ud83d\ude00", "\ufffd\U0001f600"),
        (rb"\\ud800\ud800", "\\ud800\ufffd"),
        (b"\xff", "\ufffd"),
    ],
)
def test_characters_that_are_none_are_replaced(text: bytes, label: str) -> None:
    assert decode(b'{"Labels": {"a": "%s"}}' % text, ContainerConfig).labels == {"a": label}
