"""What the daemon keeps of the resolver: a failure to tell it something forgets nothing that it was told before."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from lamina.resolver.client import Resolver, ResolverUnavailable
from lamina.resolver.messages import Member, Request, Sandbox

SANDBOX = Sandbox(
    pin="/pins/one",
    container="1" * 64,
    members=[Member(network="n", network_name="net", names=["old"], addresses=["10.0.0.2"])],
)


async def test_what_cannot_be_told_leaves_what_was_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver(tmp_path / "socket")
    told: list[Request] = []
    is_there = True

    async def tell(request: Request) -> None:
        if not is_there:
            raise ResolverUnavailable("it has ended")
        told.append(request)

    monkeypatch.setattr(resolver, "_tell", tell)
    await resolver.put(SANDBOX)
    is_there = False
    for sandbox in (msgspec.structs.replace(SANDBOX, members=[]), msgspec.structs.replace(SANDBOX, pin="/pins/two")):
        with pytest.raises(ResolverUnavailable):
            await resolver.put(sandbox)
    assert resolver._sandboxes == {SANDBOX.pin: SANDBOX}
    is_there = True
    await resolver.drop("/pins/two")
    await resolver.drop(SANDBOX.pin)
    assert [(request.verb, request.pin) for request in told] == [("put", ""), ("drop", SANDBOX.pin)]
