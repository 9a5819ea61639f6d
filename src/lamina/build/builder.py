"""A whole build: the context is received, the stages that the targets need are carried out side by side, the result is named."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.build import progress
from lamina.build.arguments import global_args
from lamina.build.bases import Bases
from lamina.build.cache.exporting import export_cache, with_inline_cache
from lamina.build.cache.importing import ImportedCaches
from lamina.build.cache.kept import CacheItem, Keeper, PruneRequest, choose, marked
from lamina.build.cache.outcomes import BuildCache, step_key
from lamina.build.checking import check
from lamina.build.context.archives import open_archive
from lamina.build.context.directory import ContextDigests, DirectoryContext, scan_directory
from lamina.build.context.named import NamedContexts, check_identity
from lamina.build.context.sent import read_dockerfile, read_local_dockerfile, receive_context
from lamina.build.context.source import FileSource
from lamina.build.graph import StageGraph
from lamina.build.remote.download import DownloadStore
from lamina.build.remote.fetching import Fetcher
from lamina.build.remote.sources import GitRepository, InvalidRemote, LocalPath, parse_source
from lamina.build.request import BuildRequest, LocalContext
from lamina.build.run.cache_mounts import CacheMounts
from lamina.build.run.running import StepRunner
from lamina.build.solver import Solver
from lamina.build.workshop import Workshop
from lamina.content.store import Lease
from lamina.dockerfile import IgnoreRules, parse
from lamina.dockerfile.lint import CheckOptions, LintViolation, LintWarning, render_summary
from lamina.image.exchange import Exchange
from lamina.image.intake import LayerIntake
from lamina.image.removal import ImageRemoval
from lamina.image.store import Hold, Image, ImageStore
from lamina.layer.tree import FileTree
from lamina.oci.digest import ImageID

_KEPT = frozenset({"contexts", "downloads", "mounts"})
"""What outlives a build: digests of local contexts, what ADD fetched, and cache mounts."""


@dataclass(frozen=True)
class Pruned:
    """What a pruning did: the items that are gone, the bytes that are free, the images of stages that went with them."""

    ids: tuple[str, ...]
    freed_bytes: int
    images: tuple[ImageID, ...]


class Builder:
    """Builds images for one engine."""

    def __init__(
        self,
        root: Path,
        images: ImageStore,
        intake: LayerIntake,
        exchange: Exchange,
        runner: StepRunner,
        cache: BuildCache,
        mounts: CacheMounts,
        removal: ImageRemoval,
    ) -> None:
        self._root = root
        self._images = images
        self._intake = intake
        self._exchange = exchange
        self._runner = runner
        self._cache = cache
        self._mounts = mounts
        self._removal = removal
        self._downloads = DownloadStore(root / "downloads")
        self._contexts = ContextDigests(root / "contexts")
        self._keepers: tuple[Keeper, ...] = (cache, mounts, self._downloads, self._contexts)
        self._began_ns: list[int] = []
        self._running: set[asyncio.Task[list[ImageID]]] = set()

    async def open(self) -> None:
        """Remove what builds of a killed daemon left."""
        self._root.mkdir(parents=True, exist_ok=True)
        for path in self._root.iterdir():
            if path.name not in _KEPT:
                shutil.rmtree(path, ignore_errors=True)
        self._downloads.open()
        await asyncio.to_thread(self._mounts.sweep)
        await self._runner.open()

    async def close(self) -> None:
        """Cancel the builds that run; returns when nothing of them is left."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))
        await self._cache.save_uses()

    async def kept(self) -> list[CacheItem]:
        """What is kept for later builds."""
        items = [item for keeper in self._keepers for item in await keeper.items()]
        return marked(items, min(self._began_ns, default=None))

    async def prune(self, request: PruneRequest) -> Pruned:
        """Remove what *request* chooses of what is kept. Builds that run lose nothing."""
        unused_since_ns = time.time_ns()
        listed = [(keeper, item) for keeper in self._keepers for item in await keeper.items()]
        unused_since_ns = min([unused_since_ns, *self._began_ns])
        items = marked([item for _, item in listed], unused_since_ns)
        free_bytes = shutil.disk_usage(self._root).free
        ids = {item.id for item in choose(items, request, free_bytes)}
        freed = 0
        for keeper in self._keepers:
            own = [item.id for owner, item in listed if owner is keeper and item.id in ids]
            freed += await keeper.remove(own, unused_since_ns)
        removed = await self._removal.prune(await self._cache.unneeded_stages())
        return Pruned(tuple(i.id for i in items if i.id in ids), freed + removed.freed_bytes, removed.deleted)

    async def track(self, build: Coroutine[Any, Any, list[ImageID]]) -> list[ImageID]:
        """Await a build, which ``close`` cancels."""
        task = asyncio.create_task(build)
        self._running.add(task)
        try:
            return await task
        finally:
            task.cancel()
            self._running.discard(task)
            await self._cache.save_uses()

    @asynccontextmanager
    async def prepare(self, request: BuildRequest, body: AsyncIterable[bytes]) -> AsyncIterator[PreparedBuild]:
        """Receive a context's tar and read its Dockerfile; what is yielded can be run. What was received is gone with the block.

        Raises DockerfileError, TargetNotFound, DockerfileNotFound, InvalidLayer.
        """
        with self._bench(request) as bench:
            rules = _outside_rules(request)
            context = await receive_context(body, bench.directory, self._intake.limits, rules, request.dockerfile)
            text = request.dockerfile_text
            if text is None:
                text = read_dockerfile(context, request.dockerfile)
            yield self._prepared(request, bench, text, context)

    @asynccontextmanager
    async def prepare_local(self, request: BuildRequest, local: LocalContext) -> AsyncIterator[PreparedBuild]:
        """As ``prepare``, with a directory of this machine, of which nothing is copied.

        Raises ContextNotHere if the client means another directory, BuildFailed if it cannot be read.
        """
        check_identity(local)
        with self._bench(request) as bench:
            context, text = await _read_directory(request, local.directory, self._contexts.path_for(local.directory))
            yield self._prepared(request, bench, text, context, origin=str(local.directory))
            await asyncio.to_thread(context.save_digests)

    @asynccontextmanager
    async def prepare_remote(self, request: BuildRequest, remote: str) -> AsyncIterator[PreparedBuild]:
        """As ``prepare``, with a repository, or a URL of a context's tar or of a lone Dockerfile.

        Raises InvalidRemote, and what fetching raises.
        """
        with self._bench(request) as bench:
            fetcher = self._fetcher(request, bench.directory)
            source = parse_source(remote, context=True)
            if isinstance(source, LocalPath):
                raise InvalidRemote(remote, "it is neither a URL nor a repository")
            context: FileSource
            if isinstance(source, GitRepository):
                directory = await fetcher.checked_out(source)
                context, text = await _read_directory(request, directory, bench.directory / "digests")
            else:
                file = await fetcher.file(source)
                archive = await open_archive(file, file.name, file.node, bench.directory, self._intake.limits)
                context = archive or FileSource(FileTree(), file.contents)
                if request.dockerfile_text is not None:
                    text = request.dockerfile_text
                elif archive:
                    text = read_dockerfile(archive, request.dockerfile)
                else:
                    text = file.read(file.name, file.node)
            yield self._prepared(request, bench, text, context, origin=remote)

    def _prepared(
        self, request: BuildRequest, bench: _Bench, text: bytes, context: FileSource, *, origin: str = ""
    ) -> PreparedBuild:
        def workshop(tell: progress.Tell) -> Workshop:
            return self._workshop(request, bench, tell)

        return PreparedBuild(request, text, context, self._images, workshop, origin)

    @contextmanager
    def _bench(self, request: BuildRequest) -> Iterator[_Bench]:
        """Raises ContextNotHere for a named context of another machine."""
        for context in request.contexts.values():
            if isinstance(context, LocalContext):
                check_identity(context)
        began_ns = time.time_ns()
        self._began_ns.append(began_ns)
        try:
            with (
                tempfile.TemporaryDirectory(dir=self._root) as scratch,
                self._intake.content.lease() as lease,
                self._images.hold() as hold,
            ):
                yield _Bench(Path(scratch), lease, hold)
        finally:
            self._began_ns.remove(began_ns)

    def _fetcher(self, request: BuildRequest, directory: Path) -> Fetcher:
        return Fetcher(self._downloads, directory, request.proxies or None, request.secrets, request.ssh)

    def _workshop(self, request: BuildRequest, bench: _Bench, tell: progress.Tell) -> Workshop:
        fetcher = self._fetcher(request, bench.directory)
        return Workshop(
            images=self._images,
            intake=self._intake,
            exchange=self._exchange,
            runner=self._runner,
            cache=self._cache,
            lease=bench.lease,
            hold=bench.hold,
            directory=bench.directory,
            fetcher=fetcher,
            contexts=NamedContexts(request.contexts, fetcher, self._contexts, bench.directory, self._intake.limits),
            request=request,
            tell=tell,
            slots=asyncio.Semaphore(max(1, request.jobs)),
            imported=ImportedCaches(request, self._images, self._intake, self._exchange, bench.lease, tell),
            bases=Bases(request, self._images, self._exchange, bench.lease, bench.hold, tell),
        )


async def _read_directory(request: BuildRequest, directory: Path, digests: Path) -> tuple[DirectoryContext, bytes]:
    """A directory as the context, and the Dockerfile, which .dockerignore may leave out."""
    rules = _outside_rules(request)
    context = await asyncio.to_thread(scan_directory, directory, digests, rules=rules, dockerfile=request.dockerfile)
    text = request.dockerfile_text
    return context, read_local_dockerfile(directory, request.dockerfile) if text is None else text


def _outside_rules(request: BuildRequest) -> IgnoreRules | None:
    text = request.dockerignore_text
    return None if text is None else IgnoreRules.parse(text.decode("utf-8", "replace"))


@dataclass(frozen=True)
class _Bench:
    """What one build has for its length: a directory, and what must not be removed meanwhile."""

    directory: Path
    lease: Lease
    hold: Hold


class PreparedBuild:
    """A build whose context was received and whose Dockerfile was read; *origin* names what the context is, where that is known."""

    def __init__(
        self,
        request: BuildRequest,
        dockerfile_text: bytes,
        context: FileSource,
        images: ImageStore,
        workshop: Callable[[progress.Tell], Workshop],
        origin: str = "",
    ) -> None:
        self._origin = origin
        self._images = images
        dockerfile = parse(dockerfile_text, filename=request.dockerfile)
        self._request = request
        self._context = context
        self._make_workshop = workshop
        self._global_args = global_args(dockerfile, request)
        self._graph = StageGraph(dockerfile, self._global_args, overridden=frozenset(request.contexts))
        self._targets = self._graph.targets(request.targets)

    async def run(self, tell: progress.Tell) -> list[ImageID]:
        """Carry out the build and return the image of each target; the last one gets the tags. *tell* hears what happens.

        Raises DockerfileError, BuildFailed's kinds, and what the services raise. Steps that were done stay in the cache.
        """
        workshop = self._make_workshop(tell)
        checking = asyncio.ensure_future(self.check())
        try:
            if self.fails_on_warnings and (warnings := await checking):
                raise LintViolation(warnings)
            images = await self._remembered(workshop)
            if self._request.warn and (warnings := await checking):
                await tell(progress.Warned(f"{render_summary(warnings)}\n"))
        finally:
            checking.cancel()
        await workshop.images.tag(images[-1].image_id, self._request.tags)
        if self._request.push:
            await self._push(images[-1], workshop)
        return [image.image_id for image in images]

    async def check(self) -> list[LintWarning]:
        """What lint has to say of the Dockerfile. Raises DockerfileError if ``# check=`` cannot be read."""
        return await asyncio.to_thread(check, self._graph, self._request, self._context, self._images)

    @property
    def fails_on_warnings(self) -> bool:
        """Whether ``# check=error=true`` says so."""
        return CheckOptions.of(self._graph.dockerfile, self._request.build_args).is_error

    async def _remembered(self, workshop: Workshop) -> list[Image]:
        """Solve, with what the last build of the same name depended on at hand; a build that fails is remembered too."""
        request = self._request
        tags = [str(tag) for tag in request.tags]
        name = step_key(self._origin, request.dockerfile, *([] if self._origin else tags))
        before = await workshop.cache.recall(name)
        workshop.memory.recall(before)
        failed = True
        try:
            images = await self._solve(workshop)
            failed = False
        finally:
            await workshop.contexts.close()
            await workshop.bases.close()
            data = workshop.memory.data(failed=failed)
            if data != before:
                await workshop.cache.memorize(name, data)
        return images

    async def _push(self, image: Image, workshop: Workshop) -> None:
        """Send the image to the registries of its names. Raises the registry's errors."""
        for tag in self._request.tags:
            await workshop.tell(progress.Noted(f"pushing {tag.familiar}\n"))
            place = workshop.exchange.place(tag, self._request.credentials, self._request.proxies)
            pushed = await workshop.exchange.pushes.push(image, place)
            await workshop.tell(progress.Pushed(tag.familiar, pushed.digest, pushed.size))

    async def _solve(self, workshop: Workshop) -> list[Image]:
        await workshop.imported.open()
        solver = Solver(self._graph, workshop, self._context, self._global_args)
        images = await solver.solve(self._targets)
        steps, result = solver.all_taken(), solver.taken(self._targets[-1])
        for target in self._request.cache_to:
            if target.is_inline:
                images[-1] = await with_inline_cache(images[-1], result, workshop)
            else:
                await export_cache(target, steps, result, workshop)
        is_wanted = self._request.tags or not self._request.for_output
        results = [image.image_id for image in images] if is_wanted else []
        await workshop.cache.record_stages(solver.stage_ends(), results)
        return images
