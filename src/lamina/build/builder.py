"""A whole build: the context is received, the stages that the target needs are carried out, the result is named."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.build.cache import BuildCache
from lamina.build.context import FileSource, read_dockerfile, receive_context
from lamina.build.errors import BuildFailed, TargetNotFound
from lamina.build.running import Report, StepRunner
from lamina.build.stage import PREDEFINED_ARGS, StageBuilder, Workshop, new_state
from lamina.content.store import Lease
from lamina.dockerfile import Dockerfile, DockerfileError, Stage, parse
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.parser import parse_line
from lamina.dockerfile.words import expand_word
from lamina.image.intake import LayerIntake
from lamina.image.store import Image, ImageStore
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference


@dataclass(frozen=True)
class BuildRequest:
    """``POST /build``: what is to be built, and how."""

    dockerfile: str = "Dockerfile"
    tags: Sequence[Reference] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    use_cache: bool = True
    network: str = "bridge"
    extra_hosts: Sequence[str] = ()
    shm_size: int = 64 << 20


class Builder:
    """Builds images for one engine."""

    def __init__(
        self, root: Path, images: ImageStore, intake: LayerIntake, runner: StepRunner, cache: BuildCache
    ) -> None:
        self._root = root
        self._images = images
        self._intake = intake
        self._runner = runner
        self._cache = cache
        self._running: set[asyncio.Task[ImageID]] = set()

    async def track(self, build: Coroutine[Any, Any, ImageID]) -> ImageID:
        """Await a build, which ``close`` cancels."""
        task = asyncio.create_task(build)
        self._running.add(task)
        try:
            return await task
        finally:
            task.cancel()
            self._running.discard(task)

    async def close(self) -> None:
        """Cancel the builds that run; returns when nothing of them is left."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(set(self._running))

    async def open(self) -> None:
        """Remove what builds of a killed daemon left."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True)
        await self._runner.open()

    @asynccontextmanager
    async def prepare(self, request: BuildRequest, body: AsyncIterable[bytes]) -> AsyncIterator[PreparedBuild]:
        """Receive a context's tar and read its Dockerfile; what is yielded can be run. What was received is gone with the block.

        Raises DockerfileError, TargetNotFound, DockerfileNotFound, InvalidLayer.
        """
        with tempfile.TemporaryDirectory(dir=self._root) as scratch, self._intake.content.lease() as lease:
            directory = Path(scratch)
            context = await receive_context(body, directory, self._intake.limits)
            dockerfile = parse(read_dockerfile(context, request.dockerfile), filename=request.dockerfile)
            yield PreparedBuild(
                dockerfile, request, context, lambda report: self._workshop(request, lease, directory, report)
            )

    def _workshop(self, request: BuildRequest, lease: Lease, directory: Path, report: Report) -> Workshop:
        return Workshop(
            images=self._images,
            intake=self._intake,
            runner=self._runner,
            cache=self._cache,
            lease=lease,
            directory=directory,
            use_cache=request.use_cache,
            network=request.network,
            extra_hosts=tuple(request.extra_hosts),
            shm_size=request.shm_size,
            build_args=request.build_args,
            report=report,
        )


class PreparedBuild:
    """A build whose context was received and whose Dockerfile was read."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        context: FileSource,
        workshop: Callable[[Report], Workshop],
    ) -> None:
        self._dockerfile = dockerfile
        self._request = request
        self._context = context
        self._make_workshop = workshop
        self._global_args = _read_global_args(dockerfile, request.build_args)
        self._bases = [s.base.expanded(self._global_args, dockerfile.escape) for s in dockerfile.stages]
        self._check_names()
        self._target = self._find_target()

    async def run(self, report: Report) -> ImageID:
        """Carry out the build and return the image's ID; *report* gets the texts of the classic progress.

        Raises DockerfileError, BuildFailed's kinds, and what the services raise. Steps that were done stay in the cache.
        """
        workshop = self._make_workshop(report)
        run = _Run(self._dockerfile, self._request, workshop, self._context, self._global_args, self._bases)
        image = await run.build(self._target)
        await workshop.images.tag(image.image_id, self._request.tags)
        return image.image_id

    def _check_names(self) -> None:
        seen: set[str] = set()
        for stage in self._dockerfile.stages:
            if stage.name and stage.name in seen:
                raise self._dockerfile.error(DockerfileError(f"duplicate name {stage.name}"), stage.base)
            seen.add(stage.name)

    def _find_target(self) -> Stage:
        stages = self._dockerfile.stages
        if not self._request.target:
            return stages[-1]
        index = stage_called(stages, self._request.target)
        if index is None:
            raise TargetNotFound(self._request.target)
        return stages[index]


class _Run:
    """One run of the builder over one Dockerfile."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        request: BuildRequest,
        workshop: Workshop,
        context: FileSource,
        global_args: Mapping[str, str],
        bases: Sequence[ins.From],
    ) -> None:
        self._dockerfile = dockerfile
        self._request = request
        self._workshop = workshop
        self._context = context
        self._global_args = global_args
        self._bases = bases
        self._done: dict[int, StageBuilder] = {}
        self._step = 0

    async def build(self, target: Stage) -> Image:
        """Carry out the stages that the target needs, in order."""
        needed = self._needed(target)
        stages = [s for s in self._dockerfile.stages if s.index in needed]
        labels = list(self._request.labels.items())
        global_args = self._dockerfile.global_args
        total = len(global_args) + sum(1 + len(s.instructions) for s in stages) + (1 if labels else 0)
        for argument in global_args:
            await self._tell(argument.source, total)
        for stage in stages:
            await self._run_stage(stage, total)
        builder = self._done[target.index]
        if labels:
            await self._tell("LABEL " + " ".join(f"{k}={v}" for k, v in labels), total)
            await builder.add_labels(labels)
            await self._tell_image(builder)
        if builder.state.image_id is None:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        await self._report_unused_args()
        return self._workshop.images.get(builder.state.image_id)

    async def _run_stage(self, stage: Stage, total: int) -> None:
        base = self._bases[stage.index]
        await self._tell(base.source, total)
        image = self._base_image(stage, base)
        builder = StageBuilder(self._workshop, new_state(image), self._dockerfile.escape, self._global_args)
        if image is not None:
            self._workshop.lease.add(*image.blobs)
        self._done[stage.index] = builder
        await self._run_triggers(builder, image)
        await self._tell_image(builder)
        for instruction in stage.instructions:
            await self._tell(instruction.source, total)
            try:
                await builder.carry_out(instruction, self._context, await self._sources(instruction))
            except DockerfileError as error:
                raise self._dockerfile.error(error, instruction) from None
            await self._tell_image(builder)

    async def _run_triggers(self, builder: StageBuilder, image: Image | None) -> None:
        """The base's ONBUILD instructions, which are used up by this."""
        triggers = list(image.config.run.on_build or []) if image is not None else []
        if not triggers:
            return
        await self._workshop.report(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        builder.state.run["OnBuild"] = None
        for trigger in triggers:
            instruction = parse_line(trigger)
            await builder.carry_out(instruction, self._context, await self._sources(instruction))

    async def _tell(self, source: str, total: int) -> None:
        self._step += 1
        await self._workshop.report(f"Step {self._step}/{total} : {source}\n")

    async def _tell_image(self, builder: StageBuilder) -> None:
        image_id = builder.state.image_id
        await self._workshop.report(f" ---> {image_id.hex[:12]}\n" if image_id is not None else " --->\n")

    def _base_image(self, stage: Stage, base: ins.From) -> Image | None:
        earlier = stage_called(self._dockerfile.stages[: stage.index], base.image)
        if earlier is not None:
            image_id = self._done[earlier].state.image_id
            return self._workshop.images.get(image_id) if image_id is not None else None
        if base.image == "scratch":
            return None
        if not base.image:
            raise self._dockerfile.error(
                DockerfileError(f"base name ({stage.base.image}) should not be blank"), stage.base
            )
        if base.platform and not Platform.of_host().matches(Platform.parse(base.platform)):
            raise BuildFailed(f"FROM --platform={base.platform}: this host builds for {Platform.of_host()} only")
        return self._workshop.images.find(base.image)

    async def _sources(self, instruction: ins.Instruction) -> dict[str, FileSource]:
        """What the instruction's --from names: a stage by name or number, or an image."""
        name = instruction.from_ if isinstance(instruction, ins.Copy) else ""
        if not name:
            return {}
        index = stage_called(self._dockerfile.stages, name)
        if index is not None and index in self._done:
            return {name: await self._done[index].file_source(f"stage {name}")}
        if name.isdigit():
            raise DockerfileError(f"invalid from flag value {name}: index out of bounds")
        state = new_state(self._workshop.images.find(name))
        other = StageBuilder(self._workshop, state, self._dockerfile.escape, {})
        return {name: await other.file_source(f"image {name}")}

    def _needed(self, target: Stage) -> set[int]:
        """The stages that the target stands on or copies from, itself included."""
        needed: set[int] = set()
        queue = [target.index]
        while queue:
            index = queue.pop()
            if index in needed:
                continue
            needed.add(index)
            stage = self._dockerfile.stages[index]
            named = [self._bases[index].image, *(i.from_ for i in stage.instructions if isinstance(i, ins.Copy))]
            for name in named:
                found = stage_called(self._dockerfile.stages[:index], name)
                if found is not None:
                    queue.append(found)
        return needed

    async def _report_unused_args(self) -> None:
        declared = {name for i in self._dockerfile.global_args for name, _ in i.pairs}
        declared |= {
            n for s in self._dockerfile.stages for i in s.instructions if isinstance(i, ins.Arg) for n, _ in i.pairs
        }
        unused = [n for n in self._request.build_args if n not in declared and n not in PREDEFINED_ARGS]
        if unused:
            names = " ".join(unused)
            await self._workshop.report(f"[Warning] One or more build-args [{names}] were not consumed\n")


def stage_called(stages: Sequence[Stage], name: str) -> int | None:
    """The number of the last of *stages* that has this name or number."""
    for stage in reversed(stages):
        if name and (stage.name == name.lower() or str(stage.index) == name):
            return stage.index
    return None


def _read_global_args(dockerfile: Dockerfile, build_args: Mapping[str, str]) -> dict[str, str]:
    """The ARGs before the first FROM, and the platform's, which every Dockerfile has."""
    host = Platform.of_host()
    values: dict[str, str] = {}
    for side in ("TARGET", "BUILD"):
        values |= {
            f"{side}PLATFORM": str(host),
            f"{side}OS": host.os,
            f"{side}ARCH": host.architecture,
            f"{side}VARIANT": "",
        }
    for instruction in dockerfile.global_args:
        for name, default in instruction.pairs:
            given = build_args.get(name)
            if given is not None or default is not None:
                text = expand_word(default or "", values, dockerfile.escape)
                values[name] = given if given is not None else text
    return values
