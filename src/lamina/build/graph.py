"""The stages of a Dockerfile as a graph: which stands on which or copies from it, and which a target needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lamina.build.errors import TargetNotFound
from lamina.build.run.mounts import RunMount
from lamina.dockerfile import Dockerfile, DockerfileError, Stage
from lamina.dockerfile import instructions as ins


class StageGraph:
    """The stages, with their bases' names expanded by the global arguments. Raises DockerfileError.

    Of several stages with one name, the last one above is meant. A name that is *overridden* (``--build-context``) means no stage in
    another one's FROM and --from.
    """

    def __init__(
        self, dockerfile: Dockerfile, global_args: Mapping[str, str], *, overridden: frozenset[str] = frozenset()
    ) -> None:
        self._overridden = overridden
        self.dockerfile = dockerfile
        self.stages: Sequence[Stage] = dockerfile.stages
        self.bases = [self._base(stage, global_args) for stage in dockerfile.stages]

    def called(self, name: str, *, before: int | None = None) -> Stage | None:
        """The last stage, of those before number *before*, that has this name or number."""
        if before is not None and name.lower() in self._overridden:
            return None
        for stage in reversed(self.stages[:before]):
            if name and (stage.name == name.lower() or str(stage.index) == name):
                return stage
        return None

    def targets(self, names: Sequence[str]) -> list[Stage]:
        """The stages to be built; the last one if none is named. Raises TargetNotFound."""
        found = []
        for name in names:
            stage = self.called(name)
            if stage is None:
                raise TargetNotFound(name)
            found.append(stage)
        return found or [self.stages[-1]]

    def needed(self, targets: Iterable[Stage]) -> list[Stage]:
        """The stages that the targets stand on or copy from, and these, in the Dockerfile's order.

        Raises DockerfileError for what can be seen to be wrong with one of them before anything is carried out.
        """
        needed: set[int] = set()
        queue = [stage.index for stage in targets]
        while queue:
            index = queue.pop()
            if index in needed:
                continue
            needed.add(index)
            found = (self.called(name, before=index) for name in self._names(index))
            queue += [stage.index for stage in found if stage is not None]
        stages = [stage for stage in self.stages if stage.index in needed]
        for instruction in (i for stage in stages for i in stage.instructions):
            if isinstance(instruction, ins.Run):
                self._check_mounts(instruction)
        return stages

    def _base(self, stage: Stage, global_args: Mapping[str, str]) -> ins.From:
        try:
            return stage.base.expanded(global_args, self.dockerfile.escape)
        except DockerfileError as error:
            raise self.dockerfile.error(error, stage.base) from None

    def _check_mounts(self, run: ins.Run) -> None:
        """Those with variables have to wait for their values."""
        for mount in run.mounts:
            if not any("$" in (value or "") for _, value in mount):
                try:
                    RunMount.of(mount)
                except DockerfileError as error:
                    raise self.dockerfile.error(error, run) from None

    def _names(self, index: int) -> Iterable[str]:
        yield self.bases[index].image
        for instruction in self.stages[index].instructions:
            yield from named_sources(instruction)


def named_sources(instruction: ins.Instruction) -> list[str]:
    """The stages, images and contexts that an instruction takes files from."""
    if isinstance(instruction, ins.Copy):
        return [instruction.from_] if instruction.from_ else []
    if isinstance(instruction, ins.Run):
        return [value for mount in instruction.mounts for key, value in mount if key == "from" and value]
    return []
