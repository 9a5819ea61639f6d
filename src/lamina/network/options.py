"""The options of network drivers, under docker's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lamina.network.claims import check_interface_name
from lamina.network.errors import InvalidNetwork
from lamina.network.model import plain_address

GatewayMode = Literal["nat", "nat-unprotected", "routed"]

_GENERAL = frozenset({"com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6"})
_BRIDGE = _GENERAL | {
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.bridge.gateway_mode_ipv4",
    "com.docker.network.bridge.gateway_mode_ipv6",
    "com.docker.network.bridge.inhibit_ipv4",
    "com.docker.network.bridge.trusted_host_interfaces",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.driver.mtu",
    "com.docker.network.host_ipv4",
    "com.docker.network.host_ipv6",
}
_CHILD = {
    "macvlan": _GENERAL | {"parent", "macvlan_mode", "com.docker.network.driver.mtu"},
    "ipvlan": _GENERAL | {"parent", "ipvlan_mode", "ipvlan_flag", "com.docker.network.driver.mtu"},
}
_MODES = {
    "macvlan": ("bridge", "private", "vepa", "passthru"),
    "ipvlan": ("l2", "l3", "l3s"),
}
_INNER_PREFIX = "com.docker.network.container_iface_prefix"
_UNSUPPORTED = ("inhibit_ipv4", "trusted_host_interfaces", "host_ipv4", "host_ipv6")
_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


@dataclass(frozen=True)
class BridgeOptions:
    """What a bridge network may be told. ``mtu`` 0 is the kernel's own."""

    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    mtu: int = 0
    interface_prefix: str = "eth"
    gateway_mode4: GatewayMode = "nat"
    gateway_mode6: GatewayMode = "nat"

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> BridgeOptions:
        """Raises InvalidNetwork."""
        _refuse_unknown("bridge", options, _BRIDGE)
        prefix = "com.docker.network.bridge."
        inner = options.get(_INNER_PREFIX) or "eth"
        if not inner.isalnum() or not check_interface_name(f"{inner}99"):
            raise InvalidNetwork(f"invalid {_INNER_PREFIX}: {inner!r}")
        binding = options.get(f"{prefix}host_binding_ipv4", "")
        if binding:
            _check_address(f"{prefix}host_binding_ipv4", binding)
        return cls(
            icc=boolean(options, f"{prefix}enable_icc", default=True),
            masquerade=boolean(options, f"{prefix}enable_ip_masquerade", default=True),
            host_binding=binding,
            mtu=_mtu(options),
            interface_prefix=inner,
            gateway_mode4=_gateway_mode(options, f"{prefix}gateway_mode_ipv4"),
            gateway_mode6=_gateway_mode(options, f"{prefix}gateway_mode_ipv6"),
        )


@dataclass(frozen=True)
class ChildOptions:
    """What a macvlan or ipvlan network may be told; without a *parent* it has one of its own that leads nowhere."""

    parent: str
    mode: str
    mtu: int = 0

    @classmethod
    def parse(cls, driver: str, options: Mapping[str, str]) -> ChildOptions:
        """Raises InvalidNetwork."""
        _refuse_unknown(driver, options, _CHILD[driver])
        mode = options.get(f"{driver}_mode") or _MODES[driver][0]
        if mode not in _MODES[driver]:
            raise InvalidNetwork(
                f"requested {driver} mode '{mode}' is not valid, '{_MODES[driver][0]}' mode is the {driver} driver default"
            )
        return cls(options.get("parent", ""), mode, _mtu(options))


def _refuse_unknown(driver: str, options: Mapping[str, str], known: frozenset[str]) -> None:
    """Others' options, which have other names, are kept and shown."""
    for name in options:
        if name not in known and (driver != "bridge" or name.startswith("com.docker.network.")):
            raise InvalidNetwork(f"unknown option {name!r} for the {driver} driver")
        if name in known and name.rpartition(".")[2] in _UNSUPPORTED:
            raise InvalidNetwork(f"option {name!r} is not supported")


def boolean(options: Mapping[str, str], name: str, *, default: bool) -> bool:
    """An option that is true or false, as Go's strconv.ParseBool takes it. Raises InvalidNetwork."""
    text = options.get(name, "")
    if text and text not in _TRUE | _FALSE:
        raise InvalidNetwork(f'strconv.ParseBool: parsing "{text}": invalid syntax ({name})')
    return text in _TRUE if text else default


def _mtu(options: Mapping[str, str]) -> int:
    text = options.get("com.docker.network.driver.mtu") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 5 or not (text == "0" or 68 <= int(text) <= 65535):
        raise InvalidNetwork(f"invalid MTU {text!r}: it must be a number from 68 to 65535")
    return int(text)


def _gateway_mode(options: Mapping[str, str], name: str) -> GatewayMode:
    text = options.get(name) or "nat"
    if text not in ("nat", "nat-unprotected", "routed"):
        raise InvalidNetwork(f"unknown gateway mode {text}")
    return text  # type: ignore[return-value]


def _check_address(name: str, text: str) -> None:
    try:
        plain_address(text)
    except ValueError:
        raise InvalidNetwork(f"invalid address {text!r} for {name}") from None
