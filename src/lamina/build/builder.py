"""A whole build: the context is received, the stages that the target needs are carried out, the result is named."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

    async def open(self) -> None:
        """Remove what builds of a killed daemon left."""
        shutil.rmtree(self._root, ignore_errors=True)
        self._root.mkdir(parents=True)
        await self._runner.open()

    async def build(self, request: BuildRequest, body: AsyncIterable[bytes], report: Report) -> ImageID:
        """Build an image from a context's tar and return its ID; *report* gets the texts of the classic progress.

        Raises DockerfileError, BuildFailed's kinds, and what the services raise. Steps that were done stay in the cache.
        """
        with tempfile.TemporaryDirectory(dir=self._root) as scratch, self._intake.content.lease() as lease:
            directory = Path(scratch)
            context = await receive_context(body, directory, self._intake.limits)
            dockerfile = parse(read_dockerfile(context, request.dockerfile), filename=request.dockerfile)
            workshop = self._workshop(request, lease, directory, report)
            build = _Build(dockerfile, request, workshop, context)
            image = await build.run()
            await self._images.tag(image.image_id, request.tags)
            return image.image_id

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


class _Build:
    """One run of the builder over one Dockerfile."""

    def __init__(self, dockerfile: Dockerfile, request: BuildRequest, workshop: Workshop, context: FileSource) -> None:
        self._dockerfile = dockerfile
        self._request = request
        self._workshop = workshop
        self._context = context
        self._done: dict[int, StageBuilder] = {}
        self._global_args = self._read_global_args()
        self._bases = [s.base.expanded(self._global_args, dockerfile.escape) for s in dockerfile.stages]
        self._step = 0

    async def run(self) -> Image:
        """Carry out the stages that the target needs, in order."""
        target = self._find_target()
        needed = self._needed(target)
        stages = [s for s in self._dockerfile.stages if s.index in needed]
        labels = [self._label_instruction()] if self._request.labels else []
        total = sum(1 + len(s.instructions) for s in stages) + len(labels)
        for stage in stages:
            last = labels if stage.index == target.index else []
            await self._run_stage(stage, [*stage.instructions, *last], total)
        image_id = self._done[target.index].state.image_id
        if image_id is None:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        self._report_unused_args()
        return self._workshop.images.get(image_id)

    async def _run_stage(self, stage: Stage, instructions: Sequence[ins.Instruction], total: int) -> None:
        base = self._bases[stage.index]
        self._tell(base.source, total)
        image = self._base_image(stage, base)
        state = new_state(image)
        builder = StageBuilder(self._workshop, state, self._dockerfile.escape, self._global_args)
        if image is not None:
            self._workshop.lease.add(*image.blobs)
            self._workshop.report(f" ---> {image.image_id.hex[:12]}\n")
        else:
            self._workshop.report(" --->\n")
        self._done[stage.index] = builder
        await self._run_triggers(builder, image)
        for instruction in instructions:
            self._tell(instruction.source, total)
            try:
                await builder.carry_out(instruction, self._context, await self._sources(instruction))
            except DockerfileError as error:
                raise self._dockerfile.error(error, instruction) from None

    async def _run_triggers(self, builder: StageBuilder, image: Image | None) -> None:
        """The base's ONBUILD instructions, which are used up by this."""
        triggers = list(image.config.run.on_build or []) if image is not None else []
        if not triggers:
            return
        self._workshop.report(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}\n")
        builder.state.run["OnBuild"] = None
        for trigger in triggers:
            instruction = parse_line(trigger)
            await builder.carry_out(instruction, self._context, await self._sources(instruction))

    def _tell(self, source: str, total: int) -> None:
        self._step += 1
        self._workshop.report(f"Step {self._step}/{total} : {source}\n")

    def _base_image(self, stage: Stage, base: ins.From) -> Image | None:
        earlier = self._stage_called(base.image, before=stage.index)
        if earlier is not None:
            image_id = self._done[earlier].state.image_id
            return self._workshop.images.get(image_id) if image_id is not None else None
        if base.image == "scratch":
            return None
        if not base.image:
            raise self._dockerfile.error(DockerfileError("base name (${…}) should not be blank"), stage.base)
        if base.platform and not Platform.of_host().matches(Platform.parse(base.platform)):
            raise BuildFailed(f"FROM --platform={base.platform}: this host builds for {Platform.of_host()} only")
        return self._workshop.images.find(base.image)

    async def _sources(self, instruction: ins.Instruction) -> dict[str, FileSource]:
        """What the instruction's --from names: a stage by name or number, or an image."""
        name = instruction.from_ if isinstance(instruction, ins.Copy) else ""
        if not name:
            return {}
        index = self._stage_called(name, before=len(self._done))
        if index is not None:
            return {name: await self._done[index].file_source(f"stage {name}")}
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
                found = self._stage_called(name, before=index)
                if found is not None:
                    queue.append(found)
        return needed

    def _stage_called(self, name: str, *, before: int) -> int | None:
        for stage in reversed(self._dockerfile.stages[:before]):
            if name and (stage.name == name.lower() or str(stage.index) == name):
                return stage.index
        return None

    def _find_target(self) -> Stage:
        stages = self._dockerfile.stages
        if not self._request.target:
            return stages[-1]
        index = self._stage_called(self._request.target, before=len(stages))
        if index is None:
            raise TargetNotFound(self._request.target)
        return stages[index]

    def _read_global_args(self) -> dict[str, str]:
        host = Platform.of_host()
        values: dict[str, str] = {}
        for side in ("TARGET", "BUILD"):
            values |= {
                f"{side}PLATFORM": str(host),
                f"{side}OS": host.os,
                f"{side}ARCH": host.architecture,
                f"{side}VARIANT": "",
            }
        for instruction in self._dockerfile.global_args:
            for name, default in instruction.pairs:
                given = self._request.build_args.get(name)
                if given is not None or default is not None:
                    text = expand_word(default or "", values, self._dockerfile.escape)
                    values[name] = given if given is not None else text
        return values

    def _label_instruction(self) -> ins.Label:
        pairs = tuple(self._request.labels.items())
        return ins.Label(source="LABEL " + " ".join(f"{k}={v}" for k, v in pairs), pairs=pairs)

    def _report_unused_args(self) -> None:
        declared = {name for i in self._dockerfile.global_args for name, _ in i.pairs}
        declared |= {
            n for s in self._dockerfile.stages for i in s.instructions if isinstance(i, ins.Arg) for n, _ in i.pairs
        }
        unused = [n for n in self._request.build_args if n not in declared and n not in PREDEFINED_ARGS]
        if unused:
            self._workshop.report(f"[Warning] One or more build-args {unused} were not consumed\n")
