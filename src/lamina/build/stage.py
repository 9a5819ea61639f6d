"""One stage: instructions carried out one after another, each making an image from the one before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lamina.build import config, progress
from lamina.build.cache.document import CachedStep
from lamina.build.cache.explain import StepInputs, whole
from lamina.build.cache.history import no_layer
from lamina.build.cache.outcomes import step_key
from lamina.build.context.source import FileSource
from lamina.build.copy.step import plan_copy, plan_directory, write_step
from lamina.build.flatten import write_flat
from lamina.build.run.step import RunStep
from lamina.build.stage_state import StageFiles, StageState
from lamina.build.steps import Steps
from lamina.build.workshop import Workshop
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.words import expand_word
from lamina.image.mutate import squashed
from lamina.layer.ingest import IngestedLayer
from lamina.oci.config import ImageConfig


class StageBuilder:
    """Carries out the instructions of stage number *stage*, from a *state* on that is its own."""

    def __init__(
        self,
        workshop: Workshop,
        state: StageState,
        *,
        escape: str,
        global_args: Mapping[str, str],
        use_cache: bool = True,
        stage: int = 0,
    ) -> None:
        self._workshop = workshop
        self._escape = escape
        self._global_args = global_args
        self.state = state
        self._files = StageFiles(self.state, workshop.intake)
        self._steps = Steps(workshop, self.state, stage=stage, use_cache=use_cache)

    @property
    def taken(self) -> list[CachedStep]:
        """The steps so far, those of a stage below this one first."""
        return self._steps.taken

    @property
    def reason(self) -> str:
        """Why the last step was carried out, or was not."""
        return self._steps.reason

    async def carry_out(
        self,
        instruction: ins.Instruction,
        step: progress.Step,
        context: FileSource,
        source_of: Mapping[str, FileSource],
    ) -> bool:
        """Carry out one instruction; returns whether its outcome came from the cache.

        *source_of* has the stages and images that the instruction takes files from. Raises DockerfileError, BuildFailed's kinds,
        and what the services raise.
        """
        instruction = instruction.expanded(self.state.variables, self._escape)
        if isinstance(instruction, ins.Run):
            return await RunStep(self._workshop, self.state, self._steps).carry_out(
                instruction, step, context, source_of
            )
        if isinstance(instruction, ins.Copy):
            source = source_of[instruction.from_] if instruction.from_ else context
            plan = await plan_copy(self._workshop, self.state, self._files, instruction, source)
            return await write_step(self._workshop, self._steps, plan, config.described(self.state.run, instruction))
        if isinstance(instruction, ins.Workdir):
            return await self._workdir(instruction)
        if isinstance(instruction, ins.Arg):
            instruction = self._declared(instruction)
        cached = await self._change_config(instruction)
        self.state.has_own_command |= isinstance(instruction, ins.Cmd)
        return cached

    async def add_labels(self, labels: Sequence[tuple[str, str]]) -> bool:
        """``--label``: taken as given, nothing in it is expanded."""
        return await self._change_config(ins.Label(pairs=tuple(labels)))

    async def squash(self) -> None:
        """Make one layer of all that the stage put on its base. The history stays, its entries without layers, as docker does it."""
        state, workshop = self.state, self._workshop
        base = workshop.images.get(state.base_id).config if state.base_id is not None else ImageConfig.empty()
        if state.image_id == state.base_id:
            return

        async def produce(tar: Path, tree: Path) -> IngestedLayer | None:
            return await write_flat(state.config.diff_ids, workshop.intake, tar, tree, base=len(base.diff_ids))

        key = step_key("squash", str(base.chain_id), state.root_name)
        outcome, _ = await self._steps.outcome(key, "squash", produce)
        said = f"merge {state.image_id} to {state.base_id}" if state.base_id else f"create new from {state.image_id}"
        made = squashed(base, state.config, outcome.layer, created=outcome.created, comment=said)
        state.go_on(await self._steps.recorded(made))

    async def file_source(self, place: str) -> FileSource:
        """The stage's files, for another stage's COPY --from."""
        return await self._files.source(place)

    def _declared(self, instruction: ins.Arg) -> ins.Arg:
        """Put arguments into scope, one after another; returns the instruction with the values that they have."""
        given = self._workshop.request.build_args
        pairs: list[tuple[str, str | None]] = []
        for name, default in instruction.pairs:
            if name in given:
                value: str | None = given[name]
            elif default is not None:
                value = expand_word(default, self.state.variables, self._escape)
            else:
                value = self._global_args.get(name)
            if value is not None:
                self.state.args[name] = value
            pairs.append((name, value))
        return replace(instruction, pairs=tuple(pairs))

    async def _change_config(self, instruction: ins.Instruction) -> bool:
        """A step that changes the JSON alone."""
        state = self.state
        run = config.change(state.run, instruction, keep_command=state.has_own_command)
        text = config.described(state.run, instruction)
        before = repr(sorted(state.run.items(), key=str))
        # an argument's value matters to the steps that use it
        words = instruction.source if isinstance(instruction, ins.Arg) else text
        key = step_key("config", state.root_name, before, words)
        author = instruction.text if isinstance(instruction, ins.Maintainer) else None
        parts = {"files below": whole(state.root_name), "configuration": whole(before), "instruction": whole(words)}
        inputs = StepInputs(key, parts)
        return await self._steps.take(inputs, text, accepts=no_layer, run=run, author=author)

    async def _workdir(self, instruction: ins.Workdir) -> bool:
        run = config.change(self.state.run, instruction)
        plan = await plan_directory(self._files, str(run["WorkingDir"]))
        if not plan.items:
            return await self._change_config(instruction)
        created_by = config.described(self.state.run, instruction)
        return await write_step(self._workshop, self._steps, plan, created_by, run=run)
