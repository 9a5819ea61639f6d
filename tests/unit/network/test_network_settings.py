"""What a network service refuses before it touches the host, and what a request cannot ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.network import NetworkService
from lamina.network.errors import InvalidSubnet


@pytest.mark.parametrize(
    "bip",
    [
        pytest.param("nonsense", id="no address"),
        pytest.param("10.219.7.1/33", id="no prefix"),
        pytest.param("fd00::1/64", id="IPv6"),
        pytest.param("10.219.7.0/24", id="the network's own address"),
        pytest.param("10.219.7.255/24", id="the broadcast address"),
        pytest.param("10.219.7.1/31", id="no room for an endpoint"),
        pytest.param("10.219.7.1", id="an address without a subnet"),
    ],
)
def test_a_bridge_address_that_makes_no_network_is_refused_by_name(tmp_path: Path, bip: str) -> None:
    with pytest.raises(InvalidSubnet) as caught:
        NetworkService(tmp_path / "root", tmp_path / "run", bridge="lt0", bip=bip, table="lt")
    assert bip in str(caught.value)
    assert list(tmp_path.iterdir()) == []
