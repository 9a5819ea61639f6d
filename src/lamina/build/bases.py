"""The images that a build stands on or copies from: those that are stored, and those that a registry has."""

from __future__ import annotations

import asyncio

from lamina.build import progress
from lamina.build.errors import BuildFailed
from lamina.build.request import BuildRequest
from lamina.content.store import Lease
from lamina.errors import LaminaError
from lamina.image.errors import ImageNotFound, PlatformMismatch
from lamina.image.exchange import Exchange
from lamina.image.store import Hold, Image, ImageStore
from lamina.oci.platform import Platform
from lamina.oci.reference import InvalidReference, Reference
from lamina.registry.errors import RegistryUnreachable


class Bases:
    """Looks up the images of one build; what is pulled is pulled once, whoever asks."""

    def __init__(
        self,
        request: BuildRequest,
        images: ImageStore,
        exchange: Exchange,
        lease: Lease,
        hold: Hold,
        tell: progress.Tell,
    ) -> None:
        self._request = request
        self._images = images
        self._exchange = exchange
        self._lease = lease
        self._hold = hold
        self._tell = tell
        self._pulls: dict[tuple[str, Platform | None], asyncio.Task[Image]] = {}

    async def find(self, name: str, platform: Platform | None) -> Image:
        """An image by name, of a platform if one is wanted; pulled if it is not stored, or is another's, or if the build says so.

        Raises ImageNotFound, PlatformMismatch, BuildFailed and the registry's errors.
        """
        stored = self._stored(name)
        is_other = stored is not None and platform is not None and not stored.config.platform.matches(platform)
        if stored is not None and not is_other and not self._request.pull:
            return stored
        try:
            reference = Reference.parse_tagged(name)
        except InvalidReference:
            if stored is None:
                raise
            return stored  # it is an ID
        key = (str(reference), platform)
        if key not in self._pulls:
            self._pulls[key] = asyncio.create_task(self._pull(reference, platform, stored))
        # shielded: a stage that is cancelled must not cancel what another waits for
        return await asyncio.shield(self._pulls[key])

    async def close(self) -> None:
        """End what is under way."""
        for task in self._pulls.values():
            task.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    def _stored(self, name: str) -> Image | None:
        try:
            return self._images.find(name)
        except ImageNotFound:
            return None

    async def _pull(self, reference: Reference, platform: Platform | None, stored: Image | None) -> Image:
        is_other = stored is not None and platform is not None and not stored.config.platform.matches(platform)
        await self._tell(progress.Noted(f"pulling {reference.familiar}\n"))
        try:
            place = self._exchange.place(reference, self._request.credentials, self._request.proxies)
            pulled = await self._exchange.pulls.pull(
                place,
                platform,
                self._lease,
                tagged=not is_other,  # a name does not change its platform by the way
            )
        except RegistryUnreachable as error:
            if stored is not None and platform is not None and is_other:
                raise PlatformMismatch(reference.familiar, platform, stored.config.platform) from None
            raise BuildFailed(f"No such image: {reference.familiar}, and {error.message}") from None
        except LaminaError as error:
            raise BuildFailed(f"failed to pull {reference.familiar}: {error.message}") from None
        image = pulled.image
        self._hold.add(image.image_id)
        await self._tell(progress.Noted(f"pulled {reference.familiar}: {image.manifest.descriptor.digest}\n"))
        return image
