"""COPY, ADD and WORKDIR as steps: from what is written in the Dockerfile to a plan of files, and from the plan to a layer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.build import config
from lamina.build.cache.explain import StepInputs, each, files
from lamina.build.cache.history import has_files
from lamina.build.cache.outcomes import step_key
from lamina.build.context.archives import open_archive
from lamina.build.context.source import FileSource
from lamina.build.copy.finding import Found, find
from lamina.build.copy.ownership import resolve_ownership
from lamina.build.copy.plan import CopyPlan, Ownership, bytes_to_read, plan_digest, write_plan
from lamina.build.remote.sources import GitRepository, HttpUrl, LocalPath, parse_source
from lamina.build.stage_state import StageFiles, StageState
from lamina.build.steps import Steps
from lamina.build.workshop import Workshop
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.layer.ingest import IngestedLayer
from lamina.layer.tree import MergedTree
from lamina.linux.worker import run_in_worker
from lamina.oci.digest import DiffID, Digest

_SMALL_BYTES = 4 << 20
_SMALL_ITEMS = 500
"""What is smaller is hashed and written in a thread; starting a worker would cost more."""


async def plan_copy(
    workshop: Workshop, state: StageState, own: StageFiles, instruction: ins.Copy, source: FileSource
) -> CopyPlan:
    """What a COPY or ADD writes. Raises DockerfileError, BuildFailed's kinds, and what fetching raises."""
    if isinstance(instruction, ins.Add) and instruction.checksum:
        _check_checksum(instruction)
    several = len(instruction.sources) > 1
    if several and not instruction.destination.endswith("/"):
        raise DockerfileError(
            f"When using {_keyword(instruction)} with more than one source file, the destination must be a directory and end with a /"
        )
    own_files = await own.source()
    ownership = resolve_ownership(own_files, instruction.chown, instruction.chmod)
    plan = CopyPlan(MergedTree() if instruction.link else await own.tree(), ownership)
    destination = _destination(state.run, instruction.destination)
    planner = _Planner(workshop, instruction, source, destination, plan)
    for name in instruction.sources:
        await planner.add(name, into_directory=several)
    if not plan.items:
        raise DockerfileError(f"{planner.keyword} failed: no source files were specified")
    return plan


def _check_checksum(instruction: ins.Add) -> None:
    """Refuse a checksum of what nothing is fetched for, in BuildKit's words. Raises DockerfileError."""
    if len(instruction.sources) != 1:
        raise DockerfileError("checksum can't be specified for multiple sources")
    name = instruction.sources[0]
    if name.startswith("<<") or isinstance(parse_source(name), LocalPath):
        raise DockerfileError("checksum requires HTTP(S) or Git sources")


async def plan_directory(own: StageFiles, path: str) -> CopyPlan:
    """What a WORKDIR writes: the directory, and those above it, as far as they are missing."""
    plan = CopyPlan(await own.tree(), Ownership())
    plan.make_directory(path)
    return plan


async def name_plan(plan: CopyPlan) -> str:
    """See ``plan_digest``."""
    if bytes_to_read(plan.items, unknown_only=True) < _SMALL_BYTES:
        return await asyncio.to_thread(plan_digest, plan.items)
    return await run_in_worker(plan_digest, (), plan.items)


async def write_step(
    workshop: Workshop, steps: Steps, plan: CopyPlan, created_by: str, run: Mapping[str, Any] | None = None
) -> bool:
    """Take the step whose outcome is a plan's layer; returns whether it was found in the cache."""
    items = plan.items
    digest = await name_plan(plan)

    async def produce(tar: Path, tree: Path) -> IngestedLayer | None:
        limits = workshop.intake.limits
        if bytes_to_read(items) < _SMALL_BYTES and len(items) < _SMALL_ITEMS:
            return await asyncio.to_thread(write_plan, items, tar, tree, workshop.clamp_ns, limits)
        return await run_in_worker(write_plan, (), items, tar, tree, workshop.clamp_ns, limits)

    async def accepts(layer: DiffID | None) -> bool:
        intake = workshop.intake
        if layer is None or not intake.content.exists(layer):
            return False
        (layer_tree,) = await intake.trees.paths([layer])
        return await has_files(items, layer_tree, intake.content.path(layer))

    parts = {"files": files(items, digest), "surroundings": each([("epoch", workshop.epoch)])}
    inputs = StepInputs(step_key("copy", digest, workshop.epoch), parts)
    return await steps.take(inputs, created_by, produce, accepts=accepts, run=run)


@dataclass(frozen=True)
class _Planner:
    """Adds the sources of one instruction to its plan."""

    workshop: Workshop
    instruction: ins.Copy
    source: FileSource
    destination: str
    plan: CopyPlan

    @property
    def keyword(self) -> str:
        return _keyword(self.instruction)

    async def add(self, name: str, *, into_directory: bool) -> None:
        """One of the words before the destination."""
        if name.startswith("<<"):
            self._add_heredoc(name, into_directory=into_directory)
            return
        remote = parse_source(name) if isinstance(self.instruction, ins.Add) else LocalPath(name)
        if isinstance(remote, GitRepository):
            await self._add_repository(remote, into_directory=into_directory)
        elif isinstance(remote, HttpUrl):
            await self._add_download(remote, into_directory=into_directory)
        elif self.instruction.parents:
            await asyncio.to_thread(
                self.plan.add_with_parents,
                self.source,
                name,
                self.destination,
                keyword=self.keyword,
                keep_owner=bool(self.instruction.from_),
                exclude=self.instruction.exclude,
            )
        else:
            found = await asyncio.to_thread(find, self.source, name, self.keyword)
            into_directory = into_directory or len(found) > 1
            if isinstance(self.instruction, ins.Add) and self.instruction.unpack is not False:
                found = await self._without_archives(found, self.source)
            await self._add_found(self.source, found, into_directory=into_directory)

    async def _add_found(self, source: FileSource, found: Sequence[Found], *, into_directory: bool) -> None:
        await asyncio.to_thread(
            self.plan.add_from,
            source,
            found,
            self.destination,
            into_directory=into_directory,
            keep_owner=bool(self.instruction.from_),
            exclude=self.instruction.exclude,
        )

    async def _add_repository(self, remote: GitRepository, *, into_directory: bool) -> None:
        assert isinstance(self.instruction, ins.Add)
        keep = self.instruction.keep_git_dir or None
        wanted = remote.with_flags(keep_git_dir=keep, checksum=self.instruction.checksum)
        files = await self.workshop.fetcher.repository(wanted)
        await self._add_found(files, [Found(b"", files.tree.root)], into_directory=into_directory)

    async def _add_download(self, remote: HttpUrl, *, into_directory: bool) -> None:
        """What was downloaded is extracted only if that is asked for."""
        assert isinstance(self.instruction, ins.Add)
        checksum = Digest.parse(self.instruction.checksum) if self.instruction.checksum else None
        file = await self.workshop.fetcher.file(remote, checksum)
        found = [Found(file.name, file.node, file.name)]
        if self.instruction.unpack:
            found = await self._without_archives(found, file)
        self.plan.add_from(file, found, self.destination, into_directory=into_directory, keep_owner=False)

    def _add_heredoc(self, name: str, *, into_directory: bool) -> None:
        wanted = name.lstrip("<-").strip("'\"")
        heredoc = next((h for h in self.instruction.heredocs if h.name == wanted), None)
        if heredoc is None:
            raise DockerfileError(f"heredoc {wanted} was not found")
        self.plan.add_text(wanted, heredoc.text, self.destination, into_directory=into_directory)

    async def _without_archives(self, found: Sequence[Found], source: FileSource) -> list[Found]:
        """Plan the contents of those files that are archives; returns the others."""
        others: list[Found] = []
        limits, directory = self.workshop.intake.limits, self.workshop.directory
        for file in found:
            is_candidate = file.node.is_regular and file.node.size > 0
            archive = await open_archive(source, file.path, file.node, directory, limits) if is_candidate else None
            if archive is None:
                others.append(file)
            else:
                self.plan.add_tree(archive, self.destination)
        return others


def _keyword(instruction: ins.Copy) -> str:
    return "ADD" if isinstance(instruction, ins.Add) else "COPY"


def _destination(run: Mapping[str, Any], text: str) -> str:
    """Where a copy goes, from the root; a slash at the end says that it is a directory."""
    path = config.working_directory(run, text)
    is_directory = text.endswith(("/", "/.")) or text in (".", "./")
    return path.rstrip("/") + "/" if is_directory else path
