"""The networks of one state root: the built-in ones, and those that clients made, each a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from lamina.network.errors import AmbiguousNetwork, NetworkExists, NetworkNotFound
from lamina.network.model import Network
from lamina.state import Database, Schema

SCHEMA = Schema(
    "network",
    (
        """CREATE TABLE network (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            definition BLOB NOT NULL
        ) STRICT""",
    ),
)


class NetworkStore:
    """Networks by ID, name, or the beginning of an ID."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._networks: dict[str, Network] = {}

    async def open(self) -> None:
        """Read all rows."""
        for row in await self._database.read(lambda c: c.execute("SELECT definition FROM network").fetchall()):
            network = msgspec.json.decode(row["definition"], type=Network)
            self._networks[network.id] = network

    def show(self, built_in: Sequence[Network]) -> None:
        """Know the built-in networks, which have no rows."""
        self._networks = {n.id: n for n in built_in} | self._networks

    def __iter__(self) -> Iterator[Network]:
        return iter(list(self._networks.values()))

    @property
    def own(self) -> list[Network]:
        """Those that clients made."""
        return [network for network in self if not network.is_built_in]

    def find(self, name: str) -> Network:
        """By name, ID, or the beginning of an ID, in this order. Raises NetworkNotFound or AmbiguousNetwork."""
        found = self.named(name) or self._networks.get(name)
        if found is not None:
            return found
        matches = [n for n in self._networks.values() if name and n.id.startswith(name)]
        if len(matches) > 1:
            raise AmbiguousNetwork(name, len(matches))
        if not matches:
            raise NetworkNotFound(name)
        return matches[0]

    def named(self, name: str) -> Network | None:
        """The network of a name, if there is one."""
        return next((n for n in self._networks.values() if n.name == name), None)

    def has_name(self, name: str) -> bool:
        """Whether a network has a name."""
        return self.named(name) is not None

    async def put(self, network: Network) -> None:
        """Keep a new network. Raises NetworkExists or WriteFailed."""
        if self.has_name(network.name):
            raise NetworkExists(network.name)
        self._networks[network.id] = network  # shown first, so that nobody else takes the name meanwhile
        row = (network.id, network.name, msgspec.json.encode(network))
        try:
            await self._database.write(lambda c: c.execute("INSERT INTO network VALUES (?, ?, ?)", row))
        except BaseException:
            self._networks.pop(network.id, None)
            raise

    async def remove(self, network: Network) -> None:
        """Forget a network. Raises WriteFailed."""
        await self._database.write(lambda c: c.execute("DELETE FROM network WHERE id = ?", (network.id,)), frees=True)
        self._networks.pop(network.id, None)
