"""Who is called what in which network. Pure: names in, addresses out."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.resolver.messages import Member, Sandbox


class Zone:
    """The names of all containers. They are compared without regard to case, as DNS does."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, Sandbox] = {}
        self._names: dict[tuple[str, str], dict[str, Member]] = {}
        """By network and name: each sandbox that has it."""
        self._reverse: dict[tuple[str, str], tuple[str, str]] = {}
        """By network and address: the sandbox that has it, and its name."""

    def get(self, pin: str) -> Sandbox | None:
        """A sandbox."""
        return self._sandboxes.get(pin)

    def put(self, sandbox: Sandbox) -> None:
        """Know a sandbox as it is now."""
        self.drop(sandbox.pin)
        self._sandboxes[sandbox.pin] = sandbox
        for member in sandbox.members:
            for name in _all_names(member):
                self._names.setdefault((member.network, name), {})[sandbox.pin] = member
            for address in member.addresses:
                if member.names:
                    name = f"{member.names[0]}.{member.network_name}"
                    self._reverse[member.network, address] = (sandbox.pin, name)

    def drop(self, pin: str) -> None:
        """Know a sandbox no more."""
        sandbox = self._sandboxes.pop(pin, None)
        if sandbox is None:
            return
        for member in sandbox.members:
            for name in _all_names(member):
                holders = self._names.get((member.network, name), {})
                holders.pop(pin, None)
                if not holders:
                    self._names.pop((member.network, name), None)
            for address in member.addresses:
                if self._reverse.get((member.network, address), ("", ""))[0] == pin:
                    del self._reverse[member.network, address]

    def pins(self) -> list[str]:
        """All sandboxes."""
        return list(self._sandboxes)

    def addresses(self, asker: Sandbox, name: str) -> list[str] | None:
        """What a name stands for as a container asks it: the addresses of all that have it. None if nobody has."""
        plain = name.rstrip(".").lower()
        wanted = asker.links.get(plain, plain).lower()
        found: list[str] | None = None
        for member in asker.members:
            holders = self._names.get((member.network, wanted))
            if holders:
                found = (found or []) + [a for holder in holders.values() for a in holder.addresses]
        return list(dict.fromkeys(found)) if found is not None else None

    def name_of(self, asker: Sandbox, address: str) -> str | None:
        """Whose an address is, as ``container.network``. None if nobody's in the asker's networks."""
        found = (self._reverse.get((member.network, address)) for member in asker.members)
        return next((holder[1] for holder in found if holder is not None), None)


def _all_names(member: Member) -> Iterable[str]:
    plain = [name.lower() for name in member.names]
    return dict.fromkeys([*plain, *(f"{name}.{member.network_name.lower()}" for name in plain)])
