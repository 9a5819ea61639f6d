"""The networks of one daemon: endpoints handed out and taken back, some of them made ahead.

Making a namespace with its interfaces takes 15 ms, taking one that is ready none. So a few are kept ready, address and all, made anew in
the background when one was taken.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import TypeVar

from lamina.linux.files import write_atomically
from lamina.linux.namespaces import remove_network_namespace
from lamina.linux.tasks import to_the_end
from lamina.network import firewall
from lamina.network.claims import Claims, NameTaken, check_interface_name
from lamina.network.errors import (
    AddressInUse,
    BridgeUnavailable,
    InvalidAddress,
    InvalidBridgeName,
    InvalidSubnet,
    NetworkNotFound,
    NoAddressLeft,
)
from lamina.network.ipam import AddressPool
from lamina.network.links import INTERFACE_PREFIX, InnerEnd, Links

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
BUILT_IN = ("bridge", "host", "none")
_LONGEST_PREFIX = 30
_DEFAULT_BRIDGE = "lamina"
_DEFAULT_TABLE = "lamina"
_MOST_DAEMONS = 100
_GONE_PATIENCE_S = 2.0
_GONE_POLL_S = 0.02
_MAC = re.compile("[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")


@dataclass(frozen=True)
class Endpoint:
    """A container's place in a network. ``sandbox`` is the path of its namespace; the rest is empty on ``none``."""

    id: str
    sandbox: str
    interface: str = ""
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""


class NetworkService:
    """The built-in networks. One bridge, one nftables table and one directory of pinned namespaces belong to it alone."""

    def __init__(
        self,
        root: Path,
        run_root: Path,
        *,
        bridge: str | None,
        bip: str | None,
        table: str | None,
        ready: int = 2,
        owner: Callable[[Path], None] | None = None,
    ) -> None:
        """Touches nothing yet. Without a *bridge* and a *table*, ``start`` chooses names that no other daemon uses.

        *bip* is the bridge's address with its prefix length; *owner* makes namespaces that another user namespace owns.
        Raises InvalidSubnet, InvalidBridgeName.
        """
        if bridge is not None and not check_interface_name(bridge):
            raise InvalidBridgeName(bridge)
        self._owner = owner
        self._root = root
        self._pins = run_root
        self._wanted_bridge = bridge
        self._wanted_table = table
        self._claims = Claims()
        self.bridge = ""
        self.table = ""
        self._wanted_bip = _gateway_of(bip) if bip else None
        self._ready_count = ready
        self._ready: list[Endpoint] = []
        self._refill: asyncio.Task[None] | None = None
        self._closing = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")
        self._links: Links | None = None
        self._pool: AddressPool | None = None
        self._held: dict[str, IPv4Address] = {}  # by endpoint ID, so that a second release frees nobody else's address
        self._leaving: set[asyncio.Task[None]] = set()
        self._failure: BridgeUnavailable | None = None
        self.ids: dict[str, str] = {}

    @property
    def pool(self) -> AddressPool | None:
        """The bridge network's addresses; None if it could not be set up."""
        return self._pool

    async def start(self, live: Iterable[Endpoint]) -> None:
        """Set the bridge network up, take over the endpoints of running containers, remove all others.

        A host on which that fails keeps ``none`` and ``host``; the reason is told to whoever asks for ``bridge``. Raises NameTaken if
        another daemon uses the bridge or the table that was asked for.
        """
        self._pins.mkdir(parents=True, exist_ok=True)
        self._root.mkdir(parents=True, exist_ok=True)
        self.ids = self._load_ids()
        kept = list(live)
        await self._in_thread(self._choose_names)
        try:
            await self._set_up_bridge()
        except (BridgeUnavailable, OSError) as error:
            self._failure = error if isinstance(error, BridgeUnavailable) else BridgeUnavailable(str(error))
            _log.warning("%s", self._failure)
        for endpoint in kept:
            if endpoint.ip and self._pool is not None:
                with suppress(AddressInUse):  # of another subnet, if the bridge's address was changed
                    self._pool.reserve(IPv4Address(endpoint.ip))
                    self._held[endpoint.id] = IPv4Address(endpoint.ip)
        await self._in_thread(lambda: self._remove_strays(kept))
        self._fill_later()

    async def acquire(self, network: str, *, ip: str | None = None, mac: str | None = None) -> Endpoint:
        """An endpoint in ``bridge`` or ``none``. On failure, and when cancelled, nothing is left behind.

        Raises NetworkNotFound, InvalidAddress, BridgeUnavailable, NoAddressLeft or AddressInUse.
        """
        if network == "none":
            return await self._make_isolated()
        if network != "bridge":
            raise NetworkNotFound(network)
        if self._failure is not None:
            raise self._failure
        if self._ready and ip is None and mac is None:
            self._fill_later()
            return self._ready.pop()
        check_addresses(ip, mac)
        address = _address_of(ip) if ip else None
        try:
            return await self._make(address, mac)
        except (AddressInUse, NoAddressLeft):
            if not self._ready and not self._leaving and (self._refill is None or self._refill.done()):
                raise
        # one that is ready may hold the address, or one on its way out; who asks comes before who may ask
        await self._give_up_ready()
        await self.settled()
        try:
            return await self._make(address, mac)
        finally:
            self._fill_later()

    async def release(self, endpoint: Endpoint) -> None:
        """Remove an endpoint and free its address; gone already is no error. It is done to its end when cancelled too."""
        await to_the_end(self._remove(endpoint))

    async def settled(self) -> None:
        """Return when the kernel has taken away the interfaces of all that was released."""
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def close(self, *, remove: bool) -> None:
        """Let go; with *remove* the bridge and its rules vanish too, which is for when no container uses them."""
        self._closing = True
        await self._give_up_ready()
        await self.settled()
        if remove and self._links is not None and not await self._in_thread(self._links.endpoints_on_bridge):
            await self._in_thread(self._links.remove_bridge)
            with suppress(BridgeUnavailable):
                await firewall.remove(self.table)
        if self._links is not None:
            await self._in_thread(self._links.close)
        self._claims.release()
        self._thread.shutdown(wait=False)

    async def _set_up_bridge(self) -> None:
        links = self._require_links()
        gateway = await self._in_thread(lambda: self._wanted_bip or links.bridge_address() or links.free_subnet())
        await self._in_thread(lambda: links.ensure_bridge(gateway))
        if _FORWARDING.read_text().strip() != "1":
            _FORWARDING.write_text("1")
        await firewall.install(self.table, self.bridge, gateway.network)
        self._pool = AddressPool(f"bridge ({self.ids['bridge']})", gateway)

    async def _make_isolated(self) -> Endpoint:
        endpoint = self._new_endpoint()
        try:
            await self._in_thread(lambda: self._require_links().add_isolated(Path(endpoint.sandbox)))
        except BaseException:
            self._undo(endpoint)
            raise
        return endpoint

    async def _make(self, wanted: IPv4Address | None = None, mac: str | None = None) -> Endpoint:
        pool = self._pool
        assert pool is not None
        if wanted is not None:
            pool.reserve(wanted)
        address = wanted or pool.allocate()
        base = self._new_endpoint()
        self._held[base.id] = address
        endpoint = Endpoint(
            base.id,
            base.sandbox,
            f"{INTERFACE_PREFIX}{base.id[:12]}",
            str(address),
            pool.subnet.prefixlen,
            str(pool.gateway.ip),
            mac or _mac_of(address),
        )
        inner = InnerEnd(IPv4Interface((address, pool.subnet.prefixlen)), pool.gateway.ip, endpoint.mac)
        try:
            await self._in_thread(
                lambda: self._require_links().add_endpoint(Path(endpoint.sandbox), endpoint.interface, inner)
            )
        except BaseException:
            self._undo(endpoint)
            raise
        return endpoint

    def _undo(self, endpoint: Endpoint) -> None:
        """Remove what a failed or cancelled making left.

        The thread may be in the midst of it: the removal comes next there, and before anything that the freed address is used for.
        """
        self._thread.submit(self._require_links().remove_endpoint, Path(endpoint.sandbox), endpoint.interface)
        self._free(endpoint)

    async def _remove(self, endpoint: Endpoint) -> None:
        """Let the kernel take the interfaces away with the namespace, which it does for many at once; its address is free then."""
        await asyncio.to_thread(remove_network_namespace, Path(endpoint.sandbox))
        if not endpoint.interface:
            self._free(endpoint)
            return
        task = asyncio.ensure_future(self._free_when_gone(endpoint))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _remove_links(self, endpoint: Endpoint) -> None:
        self._require_links().remove_endpoint(Path(endpoint.sandbox), endpoint.interface)

    async def _free_when_gone(self, endpoint: Endpoint) -> None:
        deadline = time.monotonic() + _GONE_PATIENCE_S
        while _exists(endpoint.interface):
            if time.monotonic() > deadline:
                await self._in_thread(partial(self._remove_links, endpoint))  # somebody keeps the namespace
                break
            await asyncio.sleep(_GONE_POLL_S)
        self._free(endpoint)

    def _free(self, endpoint: Endpoint) -> None:
        address = self._held.pop(endpoint.id, None)
        if address is not None and self._pool is not None:
            self._pool.release(address)

    async def _give_up_ready(self) -> None:
        """Stop making endpoints ahead and remove those that are ready."""
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.wait([self._refill])
        while self._ready:
            await self.release(self._ready.pop())

    def _fill_later(self) -> None:
        if self._failure is None and not self._closing and (self._refill is None or self._refill.done()):
            self._refill = asyncio.ensure_future(self._fill())

    async def _fill(self) -> None:
        await asyncio.sleep(0.05)  # let the container that took one start first
        try:
            while len(self._ready) < self._ready_count:
                self._ready.append(await self._make())
        except NoAddressLeft:
            _log.debug("no address is left for endpoints made ahead")
        except Exception:
            _log.warning("no endpoint could be made ahead", exc_info=True)

    def _new_endpoint(self) -> Endpoint:
        endpoint_id = secrets.token_hex(32)
        return Endpoint(endpoint_id, str(self._pins / endpoint_id[:12]))

    def _choose_names(self) -> None:
        """Claim a bridge and a table: those asked for, or those of last time, or the first that nobody uses."""
        remembered = self._root / "bridge"
        last = remembered.read_text().strip() if remembered.exists() else ""
        numbered = [f"{_DEFAULT_BRIDGE}{number}" for number in range(_MOST_DAEMONS)]
        candidates = (
            [self._wanted_bridge] if self._wanted_bridge else list(dict.fromkeys([last or numbered[0], *numbered]))
        )
        for name in candidates:
            links = Links(name, self._owner)
            is_foreign = (
                self._wanted_bridge is None and name != last and links.foreign_endpoints(self._own_interfaces())
            )
            if not is_foreign and self._claims.take("bridge", name):
                break
            links.close()
        else:
            raise NameTaken("bridge", candidates[0])
        suffix = name.removeprefix(_DEFAULT_BRIDGE) if name in numbered[1:] else ""
        self.bridge, self.table, self._links = name, self._wanted_table or f"{_DEFAULT_TABLE}{suffix}", links
        if not self._claims.take("table", self.table):
            self._claims.release()
            links.close()
            raise NameTaken("table", self.table)
        remembered.write_text(name)

    def _own_interfaces(self) -> set[str]:
        """The outer ends of all namespaces that this run root pins, whoever made them."""
        return {f"{INTERFACE_PREFIX}{pin.name}" for pin in self._pins.iterdir()}

    def _require_links(self) -> Links:
        assert self._links is not None
        return self._links

    def _remove_strays(self, kept: list[Endpoint]) -> None:
        """Only what this run root pins is looked at: what else is on the bridge may be another daemon's that was killed."""
        sandboxes = {endpoint.sandbox for endpoint in kept}
        for pin in self._pins.iterdir():
            if str(pin) not in sandboxes:
                self._require_links().remove_endpoint(pin, f"{INTERFACE_PREFIX}{pin.name}")

    def _load_ids(self) -> dict[str, str]:
        """The networks' IDs, made once for a state root."""
        path = self._root / "ids.json"
        try:
            ids: dict[str, str] = json.loads(path.read_text())
        except FileNotFoundError:
            ids = {name: secrets.token_hex(32) for name in BUILT_IN}
            write_atomically(path, json.dumps(ids).encode())
        return ids

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)


def check_addresses(ip: str | None, mac: str | None) -> None:
    """Refuse what no endpoint can have. Raises InvalidAddress."""
    if ip:
        _address_of(ip)
    if mac and not _MAC.fullmatch(mac):
        raise InvalidAddress("MAC", mac)


def _gateway_of(bip: str) -> IPv4Interface:
    try:
        gateway = IPv4Interface(bip)
    except ValueError as error:
        raise InvalidSubnet(bip, str(error)) from None
    if gateway.network.prefixlen > _LONGEST_PREFIX:
        raise InvalidSubnet(bip, "it leaves no address for a container; write it as 10.1.0.1/16")
    if gateway.ip in (gateway.network.network_address, gateway.network.broadcast_address):
        raise InvalidSubnet(bip, "it is the address of the network or of all its hosts, not of one")
    return gateway


def _address_of(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise InvalidAddress("IPv4", text) from None


def _mac_of(address: IPv4Address) -> str:
    """A locally administered address that is unique in the subnet, as the IP address is (docker's rule)."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _exists(interface: str) -> bool:
    try:
        socket.if_nametoindex(interface)
    except OSError:
        return False
    return True
