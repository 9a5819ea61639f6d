"""The solver: stages are carried out side by side, each as soon as what it stands on and copies from is there.

A stage is a task. It waits for its base at once, and for a stage that it copies from only when it comes to that instruction, so that all
it can do before is done by then. Stages refer to earlier ones alone, so nobody waits in a circle. The first failure cancels the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from lamina.build import progress
from lamina.build.arguments import NEVER_UNUSED
from lamina.build.cache.document import CachedStep
from lamina.build.context.source import FileSource
from lamina.build.errors import BuildFailed, CommandFailed, shown_with
from lamina.build.graph import StageGraph, named_sources
from lamina.build.stage import StageBuilder
from lamina.build.stage_state import StageState
from lamina.build.workshop import Workshop
from lamina.dockerfile import DockerfileError, Stage
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.parser import parse_line
from lamina.errors import LaminaError
from lamina.image.store import Image
from lamina.oci.digest import ImageID
from lamina.oci.platform import Platform


class Solver:
    """One run over one graph."""

    def __init__(
        self, graph: StageGraph, workshop: Workshop, context: FileSource, arguments: Mapping[str, str]
    ) -> None:
        self._graph = graph
        self._workshop = workshop
        self._context = context
        self._arguments = arguments
        self._stages: dict[int, asyncio.Task[StageBuilder]] = {}
        self._steps: dict[int, list[progress.Step]] = {}
        self._inherited_args: set[str] = set()

    async def solve(self, targets: Sequence[Stage]) -> list[Image]:
        """Carry out what the targets need and return their images. Raises the first failure of any stage."""
        needed = self._graph.needed(targets)
        steps = self._number_steps(needed, targets[-1])
        await self._workshop.tell(progress.Planned((-1, *(stage.index for stage in needed))))
        for step in steps[: len(self._graph.dockerfile.global_args)]:
            await self._workshop.tell(progress.StepBegan(step))
        await self._workshop.tell(progress.StageEnded(-1))
        await self._carry_out(needed, targets[-1])
        images = [self._image_of(self._stages[stage.index].result()) for stage in targets]
        await self._warn_of_unused_args()
        return images

    def stage_ends(self) -> list[ImageID]:
        """The last image of each stage that was carried out, but for stages that are their base and no more."""
        states = [task.result().state for task in self._stages.values()]
        return [s.image_id for s in states if s.image_id is not None and s.image_id != s.base_id]

    def taken(self, target: Stage) -> list[CachedStep]:
        """The steps that a target's image was made by, those of the stages that it stands on first."""
        return self._stages[target.index].result().taken

    def all_taken(self) -> list[CachedStep]:
        """The steps of all stages."""
        return [step for task in self._stages.values() for step in task.result().taken]

    async def _carry_out(self, needed: Sequence[Stage], last: Stage) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for stage in needed:
                    work = self._stage(stage, labelled=stage is last)
                    self._stages[stage.index] = tasks.create_task(work)
        except BaseExceptionGroup as failures:
            raise _first(failures) from None

    def _number_steps(self, needed: Sequence[Stage], last: Stage) -> list[progress.Step]:
        """Number every step that is going to be told of, in the Dockerfile's order."""
        sources = [(-1, "", argument.source) for argument in self._graph.dockerfile.global_args]
        for stage in needed:
            rows = [self._graph.bases[stage.index].source, *(i.source for i in stage.instructions)]
            labels = self._workshop.request.labels
            if stage is last and labels:
                rows.append("LABEL " + " ".join(f"{k}={v}" for k, v in labels.items()))
            sources += [(stage.index, stage.name, source) for source in rows]
        steps = [
            progress.Step(number, len(sources), index, name, source)
            for number, (index, name, source) in enumerate(sources, 1)
        ]
        for step in steps:
            self._steps.setdefault(step.stage, []).append(step)
        return steps

    async def _stage(self, stage: Stage, *, labelled: bool) -> StageBuilder:
        tell = self._workshop.tell
        first, *steps = self._steps[stage.index]
        await tell(progress.StepBegan(first))
        with self._located(stage.base):
            image, platform = await self._base(stage)
        request = self._workshop.request
        builder = StageBuilder(
            self._workshop,
            StageState.over(image, platform),
            escape=self._graph.dockerfile.escape,
            global_args=self._arguments,
            use_cache=request.use_cache and not {stage.name, str(stage.index)} & request.no_cache_filter,
            stage=stage.index,
        )
        if image is not None:
            self._workshop.keep(image)
        builder.taken.extend(await self._taken_below(stage))
        with self._located(stage.base):
            await self._run_triggers(builder, image, first, stage)
        await tell(progress.StepEnded(first, builder.state.image_id))
        for instruction, step in zip(stage.instructions, steps, strict=False):
            await tell(progress.StepBegan(step))
            with self._located(instruction):
                cached = await self._instruction(builder, instruction, step, stage)
            reason = builder.reason if request.explain else ""
            await tell(progress.StepEnded(step, builder.state.image_id, cached, reason))
        if labelled and request.labels:
            await tell(progress.StepBegan(steps[-1]))
            cached = await builder.add_labels(list(request.labels.items()))
            await tell(progress.StepEnded(steps[-1], builder.state.image_id, cached))
        if labelled and request.squash:
            await builder.squash()
        await tell(progress.StageEnded(stage.index))
        return builder

    @contextmanager
    def _located(self, instruction: ins.Instruction) -> Iterator[None]:
        """Have what fails tell the instruction's lines."""
        dockerfile = self._graph.dockerfile
        try:
            yield
        except DockerfileError as error:
            raise dockerfile.error(error, instruction) from None
        except CommandFailed as error:
            error.source = dockerfile.shown(instruction)
            raise
        except LaminaError as error:
            raise shown_with(error, dockerfile.shown(instruction)) from None

    async def _instruction(
        self, builder: StageBuilder, instruction: ins.Instruction, step: progress.Step, stage: Stage
    ) -> bool:
        sources = {name: await self._source(name, stage) for name in named_sources(instruction)}
        return await builder.carry_out(instruction, step, self._context, sources)

    async def _run_triggers(
        self, builder: StageBuilder, image: Image | None, step: progress.Step, stage: Stage
    ) -> None:
        """The base's ONBUILD instructions, which are used up by this."""
        triggers = list(image.config.run.on_build or []) if image is not None else []
        if not triggers:
            return
        await self._workshop.tell(progress.TriggersBegan(step, len(triggers)))
        builder.state.run["OnBuild"] = None
        for trigger in triggers:
            instruction = parse_line(trigger)
            if isinstance(instruction, ins.Arg):
                self._inherited_args.update(name for name, _ in instruction.pairs)
            await self._instruction(builder, instruction, step, stage)

    async def _base(self, stage: Stage) -> tuple[Image | None, Platform | None]:
        """What a stage stands on: an image, or nothing for a platform. Raises PlatformMismatch and what looking up an image does."""
        base = self._graph.bases[stage.index]
        earlier = self._graph.called(base.image, before=stage.index)
        if earlier is not None:
            state = (await self._finished(earlier)).state
            image = self._workshop.images.get(state.image_id) if state.image_id is not None else None
            return image, state.config.platform
        wanted = Platform.parse(base.platform) if base.platform else self._workshop.request.platform
        if base.image == "scratch":
            return None, wanted
        if not base.image:
            raise DockerfileError(f"base name ({stage.base.image}) should not be blank")
        return await self._workshop.bases.find(self._overridden_base(base.image) or base.image, wanted), wanted

    async def _taken_below(self, stage: Stage) -> list[CachedStep]:
        earlier = self._graph.called(self._graph.bases[stage.index].image, before=stage.index)
        return (await self._finished(earlier)).taken if earlier is not None else []

    def _overridden_base(self, name: str) -> str | None:
        """The image that a named context puts in a base's place. Raises BuildFailed for a context that is none."""
        contexts = self._workshop.contexts
        if not contexts.has(name):
            return None
        image = contexts.image(name)
        if image is None:
            raise BuildFailed(f"FROM {name}: the build context of this name is no image; it can be copied from")
        return image

    async def _source(self, name: str, stage: Stage) -> FileSource:
        """What a --from names: a stage by name or number, or an image."""
        earlier = self._graph.called(name, before=stage.index)
        if earlier is not None:
            return await (await self._finished(earlier)).file_source(f"stage {name}")
        contexts = self._workshop.contexts
        if contexts.has(name):
            reference = contexts.image(name)
            if reference is None:
                return await contexts.files(name)
            name = reference
        elif name.isdigit():
            raise DockerfileError(f"invalid from flag value {name}: index out of bounds")
        image = await self._workshop.bases.find(name, self._workshop.request.platform)
        self._workshop.keep(image)
        builder = StageBuilder(self._workshop, StageState.over(image), escape="\\", global_args={})
        return await builder.file_source(f"image {name}")

    async def _finished(self, stage: Stage) -> StageBuilder:
        # shielded: a stage that waits and is cancelled must not cancel the one that others wait for too
        return await asyncio.shield(self._stages[stage.index])

    def _image_of(self, builder: StageBuilder) -> Image:
        if builder.state.image_id is None:
            raise BuildFailed("No image was generated. Is your Dockerfile empty?")
        return self._workshop.images.get(builder.state.image_id)

    async def _warn_of_unused_args(self) -> None:
        dockerfile = self._graph.dockerfile
        declared = {name for i in dockerfile.global_args for name, _ in i.pairs} | self._inherited_args
        declared |= {n for s in dockerfile.stages for i in s.instructions if isinstance(i, ins.Arg) for n, _ in i.pairs}
        unused = [n for n in self._workshop.request.build_args if n not in declared and n not in NEVER_UNUSED]
        if unused:
            await self._workshop.tell(
                progress.Warned(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
            )


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that came first; the others are of stages that waited for it."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure
