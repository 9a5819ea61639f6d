"""One stage: instructions carried out one after another, each making an image from the one before it.

Every step's image is recorded, as the classic builder does: it is what the cache gives back, and what ``history`` shows as its parent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.build import config
from lamina.build.archives import open_archive
from lamina.build.cache import BuildCache
from lamina.build.context import FileSource
from lamina.build.copying import CopyPlan, Found, Ownership, find
from lamina.build.errors import CommandFailed, UnsupportedInstruction
from lamina.build.ownership import resolve_ownership
from lamina.build.running import Report, RunRequest, StepRunner
from lamina.content.store import Lease
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.words import expand_word
from lamina.image.intake import LayerIntake
from lamina.image.mutate import append, plain_manifest, timestamp
from lamina.image.store import Image, ImageStore
from lamina.layer.ingest import IngestedLayer
from lamina.layer.merge import apply_layer
from lamina.layer.tree import MergedTree, load
from lamina.oci.config import History, ImageConfig
from lamina.oci.digest import DiffID, ImageID

PREDEFINED_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "ftp_proxy",
                   "no_proxy", "all_proxy")  # fmt: skip

_REMOTE = ("http://", "https://", "git@", "git://", "ssh://")


@dataclass(frozen=True)
class Workshop:
    """What carrying out steps needs: the services, and what the whole build shares."""

    images: ImageStore
    intake: LayerIntake
    runner: StepRunner
    cache: BuildCache
    lease: Lease
    directory: Path
    use_cache: bool
    network: str
    extra_hosts: tuple[str, ...]
    shm_size: int
    build_args: Mapping[str, str]
    report: Report


@dataclass
class StageState:
    """A stage so far: its image (None for scratch), what the next image's JSON starts from, the ARGs in scope."""

    config: ImageConfig
    image_id: ImageID | None
    run: dict[str, Any]
    args: dict[str, str] = field(default_factory=dict)
    has_own_command: bool = False
    tree: MergedTree | None = None
    layers_in_tree: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """What ``$NAME`` means here: ENV wins over ARG."""
        return {**self.args, **config.environment(self.run)}


class StageBuilder:
    """Carries out the instructions of one stage."""

    def __init__(self, workshop: Workshop, state: StageState, escape: str, global_args: Mapping[str, str]) -> None:
        self._workshop = workshop
        self.state = state
        self._escape = escape
        self._global_args = global_args

    async def carry_out(
        self, instruction: ins.Instruction, context: FileSource, source_of: Mapping[str, FileSource]
    ) -> None:
        """Carry out one instruction. *source_of* has the stages and images that COPY --from may name.

        Raises DockerfileError, BuildFailed's kinds, and what the services raise.
        """
        instruction = instruction.expanded(self.state.variables, self._escape)
        if isinstance(instruction, ins.Arg):
            self._declare(instruction)
            await self._change_config(instruction)
        elif isinstance(instruction, ins.Cmd):
            await self._change_config(instruction)
            self.state.has_own_command = True
        elif isinstance(instruction, ins.Run):
            await self._run(instruction)
        elif isinstance(instruction, ins.Copy):
            await self._copy(instruction, context, source_of)
        elif isinstance(instruction, ins.Workdir):
            await self._workdir(instruction)
        elif isinstance(instruction, ins.Maintainer):
            await self._change_config(instruction, author=instruction.text)
        else:
            await self._change_config(instruction)

    async def add_labels(self, labels: Sequence[tuple[str, str]]) -> None:
        """``--label``: taken as given, nothing in it is expanded."""
        await self._change_config(ins.Label(pairs=tuple(labels)))

    async def file_source(self, place: str) -> FileSource:
        """The stage's files, for another stage's COPY --from."""
        tars = [self._workshop.intake.content.path(d) for d in self.state.config.diff_ids]
        return FileSource(await self.root_tree(), tars, place=place)

    async def root_tree(self) -> MergedTree:
        """What the stage's root shows, brought up to its last layer."""
        state = self.state
        if state.tree is None:
            state.tree = MergedTree()
        pending = list(state.config.diff_ids[state.layers_in_tree :])
        paths = await self._workshop.intake.trees.paths(pending)
        for path in paths:
            apply_layer(state.tree, load(path), state.layers_in_tree)
            state.layers_in_tree += 1
        return state.tree

    def _declare(self, instruction: ins.Arg) -> None:
        given = self._workshop.build_args
        for name, default in instruction.pairs:
            if name in given:
                self.state.args[name] = given[name]
            elif default is not None:
                self.state.args[name] = default
            elif name in self._global_args:
                self.state.args[name] = self._global_args[name]

    async def _change_config(self, instruction: ins.Instruction, *, author: str | None = None) -> None:
        run = config.change(self.state.run, instruction, keep_command=self.state.has_own_command)
        text = config.described(self.state.run, instruction)
        key = BuildCache.key(self.state.image_id, "config", text, repr(sorted(run.items(), key=str)))
        if not await self._reuse(key):
            await self._commit(key, text, run=run, author=author)

    async def _run(self, instruction: ins.Run) -> None:
        if instruction.mounts:
            raise UnsupportedInstruction("RUN --mount")
        if instruction.security != "sandbox":
            raise UnsupportedInstruction("RUN --security=insecure")
        run, workshop = self.state.run, self._workshop
        args, files = _command(run, instruction)
        network = workshop.network if instruction.network == "default" else instruction.network
        build_env = [f"{name}={value}" for name, value in sorted(self.state.args.items())]
        key = BuildCache.key(self.state.image_id, "run", network, *args, *build_env, *(text for _, text in files))
        if await self._reuse(key):
            return
        proxies = [f"{n}={v}" for n, v in workshop.build_args.items() if n in PREDEFINED_ARGS]
        request = RunRequest(
            args=args,
            env=[*proxies, *build_env, *(run.get("Env") or [])],
            cwd=run.get("WorkingDir") or "/",
            user=run.get("User") or "",
            network=network,
            extra_hosts=workshop.extra_hosts,
            shm_size=workshop.shm_size,
            files=files,
        )
        tar, tree = workshop.intake.content.temporary_path(), workshop.intake.trees.temporary_path()
        outcome = await workshop.runner.run(request, self.state.config.diff_ids, tar, tree, workshop.report)
        if outcome.exit_code != 0:
            raise CommandFailed(" ".join(args), outcome.exit_code)
        prefix = f"|{len(build_env)} {' '.join(build_env)} " if build_env else ""
        created_by = f"RUN {prefix}{' '.join(args)}"
        await self._commit_layer(key, created_by, outcome.layer, tar, tree)

    async def _copy(self, instruction: ins.Copy, context: FileSource, source_of: Mapping[str, FileSource]) -> None:
        if instruction.parents:
            raise UnsupportedInstruction("COPY --parents")
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        root = await self.root_tree()
        plan = CopyPlan(root, resolve_ownership(self._own_files(root), instruction.chown, instruction.chmod))
        several = len(instruction.sources) > 1
        if several and not instruction.destination.endswith("/"):
            raise DockerfileError(
                f"When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )
        destination = _destination(self.state.run, instruction.destination)
        source = source_of[instruction.from_] if instruction.from_ else context
        for name in instruction.sources:
            if name.startswith("<<"):
                self._plan_heredoc(plan, instruction, name, destination, several=several)
                continue
            if isinstance(instruction, ins.Add) and name.startswith(_REMOTE):
                raise UnsupportedInstruction("ADD from a URL")
            found = find(source, name, keyword)
            several = several or len(found) > 1
            if isinstance(instruction, ins.Add) and instruction.unpack is not False:
                found = await self._plan_archives(plan, found, source, destination)
            plan.add_from(
                source,
                found,
                destination,
                into_directory=several,
                keep_owner=bool(instruction.from_),
                exclude=instruction.exclude,
            )
        if not plan.items:
            raise DockerfileError(f"{keyword} failed: no source files were specified")
        await self._write_plan(plan, config.described(self.state.run, instruction))

    def _plan_heredoc(
        self, plan: CopyPlan, instruction: ins.Copy, name: str, destination: str, *, several: bool
    ) -> None:
        wanted = name.lstrip("<-").strip("'\"")
        heredoc = next((h for h in instruction.heredocs if h.name == wanted), None)
        if heredoc is None:
            raise DockerfileError(f"heredoc {wanted} was not found")
        text = expand_word(heredoc.text, self.state.variables, self._escape) if heredoc.expand else heredoc.text
        plan.add_text(wanted, text, destination, into_directory=several)

    async def _plan_archives(
        self, plan: CopyPlan, found: Sequence[Found], source: FileSource, destination: str
    ) -> list[Found]:
        """Plan the contents of those files that are archives; returns the others."""
        others: list[Found] = []
        for path, node in found:
            limits, directory = self._workshop.intake.limits, self._workshop.directory
            archive = await open_archive(source, node, directory, limits) if node.is_regular and node.size else None
            if archive is None:
                others.append((path, node))
            else:
                plan.add_tree(archive, destination)
        return others

    def _own_files(self, root: MergedTree) -> FileSource:
        return FileSource(root, [self._workshop.intake.content.path(d) for d in self.state.config.diff_ids])

    async def _workdir(self, instruction: ins.Workdir) -> None:
        run = config.change(self.state.run, instruction)
        plan = CopyPlan(await self.root_tree(), Ownership())
        plan.make_directory(str(run["WorkingDir"]))
        if plan.items:
            await self._write_plan(plan, config.described(self.state.run, instruction), run=run)
        else:
            await self._change_config(instruction)

    async def _write_plan(self, plan: CopyPlan, created_by: str, run: Mapping[str, Any] | None = None) -> None:
        digest = await asyncio.to_thread(plan.digest)
        key = BuildCache.key(self.state.image_id, "copy", "" if run is None else created_by, digest)
        if await self._reuse(key):
            return
        content, trees = self._workshop.intake.content, self._workshop.intake.trees
        tar, tree = content.temporary_path(), trees.temporary_path()
        layer = await asyncio.to_thread(plan.write, tar, tree)
        await self._commit_layer(key, created_by, layer, tar, tree, run=run)

    async def _commit_layer(
        self,
        key: str,
        created_by: str,
        layer: IngestedLayer | None,
        tar: Path,
        tree: Path,
        run: Mapping[str, Any] | None = None,
    ) -> None:
        if layer is not None:
            self._workshop.intake.adopt(layer, self._workshop.lease, tar, tree)
        await self._commit(key, created_by, run=run, layer=DiffID(layer.diff_id) if layer else None)

    async def _commit(
        self,
        key: str,
        created_by: str,
        *,
        run: Mapping[str, Any] | None = None,
        layer: DiffID | None = None,
        author: str | None = None,
    ) -> None:
        state, workshop = self.state, self._workshop
        entry = History(created=timestamp(), created_by=created_by, empty_layer=layer is None, author=author)
        made = append(state.config, entry, layer=layer, run=run if run is not None else state.run, author=author)
        sizes = [workshop.intake.content.size(d) for d in made.diff_ids]
        image = await workshop.images.add(made, plain_manifest(made, sizes), parent=state.image_id)
        await workshop.cache.put(key, image.image_id)
        self._move_to(image)

    async def _reuse(self, key: str) -> bool:
        if not self._workshop.use_cache:
            return False
        image_id = await self._workshop.cache.find(key)
        if image_id is None:
            return False
        await self._workshop.report(" ---> Using cache\n")
        image = self._workshop.images.get(image_id)
        self._workshop.lease.add(*image.blobs)
        self._move_to(image)
        return True

    def _move_to(self, image: Image) -> None:
        self.state.config = image.config
        self.state.image_id = image.image_id
        self.state.run = dict(image.config.run_document)


def _command(run: Mapping[str, Any], instruction: ins.Run) -> tuple[list[str], list[tuple[str, str]]]:
    """A RUN's words, and the files that its here-documents need. Raises DockerfileError if there are none."""
    if not instruction.words:
        raise DockerfileError("No command specified")
    if not instruction.heredocs or not instruction.is_shell:
        return config.command_words(run, instruction), []
    first = instruction.heredocs[0]
    text = instruction.words[0].strip()
    shell = list(run.get("Shell") or config.DEFAULT_SHELL)
    if text.startswith("<<") and len(text.split()) == 1:
        if first.text.startswith("#!"):
            path = f"/dev/pipes/{first.name}"
            return [path], [(path, first.text)]
        return [*shell, first.text], []
    bodies = "".join(f"\n{h.text}{h.name}" for h in instruction.heredocs)
    return [*shell, text + bodies + "\n"], []


def _destination(run: Mapping[str, Any], text: str) -> str:
    """Where a copy goes, from the root; a slash at the end says that it is a directory."""
    path = config.working_directory(run, text)
    is_directory = text.endswith(("/", "/.")) or text in (".", "./")
    return path.rstrip("/") + "/" if is_directory else path


def new_state(image: Image | None) -> StageState:
    """The state of a stage at its beginning: over an image, or from scratch."""
    if image is None:
        return StageState(ImageConfig.empty(), None, config.with_default_path({}))
    return StageState(image.config, image.image_id, config.with_default_path(image.config.run_document))
