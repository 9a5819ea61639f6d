"""One stage: instructions carried out one after another, each making an image from the one before it.

Every step's image is recorded, as the classic builder does: it is what the cache gives back, and what ``history`` shows as its parent.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.build import config
from lamina.build.cache import BuildCache
from lamina.build.context import FileSource
from lamina.build.copying import CopyPlan, Ownership
from lamina.build.errors import BuildFailed, CommandFailed, UnsupportedInstruction
from lamina.build.running import Report, RunRequest, StepRunner
from lamina.content.store import Lease
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.words import expand_word
from lamina.image.intake import LayerIntake
from lamina.image.mutate import append, plain_manifest, timestamp
from lamina.image.store import Image, ImageStore
from lamina.layer.compression import detect
from lamina.layer.ingest import IngestedLayer, ingest
from lamina.layer.merge import apply_layer
from lamina.layer.tree import MergedTree, Node, load
from lamina.linux.pipes import feed
from lamina.linux.worker import run_in_worker
from lamina.oci.config import History, ImageConfig
from lamina.oci.digest import DiffID, ImageID

PREDEFINED_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "ftp_proxy",
                   "no_proxy", "all_proxy")  # fmt: skip

_READ_BYTES = 1 << 20


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
        run = config.change(self.state.run, instruction)
        text = instruction.source if not isinstance(instruction, ins.Arg) else f"{instruction.source} {self.state.args}"
        key = BuildCache.key(self.state.image_id, "config", text, repr(sorted(run.items(), key=str)))
        if not await self._reuse(key, run):
            await self._commit(key, instruction.source, run=run, author=author)

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
        if await self._reuse(key, run):
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
        plan = CopyPlan(root, await self._ownership(instruction, root))
        if len(instruction.sources) > 1 and not instruction.destination.endswith("/"):
            raise DockerfileError(
                f"When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )
        destination = config.working_directory(self.state.run, instruction.destination)
        slash = instruction.destination.endswith(("/", "/.")) or instruction.destination in (".", "./")
        destination = destination.rstrip("/") + "/" if slash else destination
        source = source_of[instruction.from_] if instruction.from_ else context
        several = len(instruction.sources) > 1
        for name in instruction.sources:
            if name.startswith("<<"):
                self._plan_heredoc(plan, instruction, name, destination, several=several)
            elif isinstance(instruction, ins.Add) and await self._plan_archive(
                plan, instruction, source, name, destination
            ):
                continue
            else:
                plan.add_from(
                    source,
                    name,
                    destination,
                    keyword=keyword,
                    into_directory=several,
                    keep_owner=bool(instruction.from_),
                    exclude=instruction.exclude,
                )
        await self._write_plan(plan, instruction.source, instruction.source)

    def _plan_heredoc(
        self, plan: CopyPlan, instruction: ins.Copy, name: str, destination: str, *, several: bool
    ) -> None:
        wanted = name.lstrip("<-").strip("'\"")
        heredoc = next((h for h in instruction.heredocs if h.name == wanted), None)
        if heredoc is None:
            raise DockerfileError(f"heredoc {wanted} was not found")
        text = expand_word(heredoc.text, self.state.variables, self._escape) if heredoc.expand else heredoc.text
        plan.add_text(wanted, text, destination, into_directory=several)

    async def _plan_archive(
        self, plan: CopyPlan, instruction: ins.Add, source: FileSource, name: str, destination: str
    ) -> bool:
        """ADD of a local tar extracts it; False if *name* is no archive."""
        if name.startswith(("http://", "https://", "git@", "git://", "ssh://")):
            raise UnsupportedInstruction("ADD from a URL")
        node = source.tree.lookup(os.fsencode(name))
        if node is None or not node.is_regular or instruction.unpack is False:
            return False
        head = source.read(node, 512)
        if detect(head) == "none" and head[257:262] != b"ustar":
            return False
        stem = self._workshop.directory / f"archive{os.urandom(6).hex()}"
        tar, tree = stem.with_suffix(".tar"), stem.with_suffix(".tree")

        async def take(fd: int) -> IngestedLayer:
            return await run_in_worker(
                ingest, (fd,), fd, tar_path=tar, tree_path=tree, limits=self._workshop.intake.limits
            )

        try:
            await feed(_stored_bytes(source, node), take)
        except DockerfileError:
            raise
        except Exception:
            if instruction.unpack:
                raise
            return False  # compressed, but no tar: it is copied as it is
        plan.add_tree(FileSource(load(tree), [tar]), destination)
        return True

    async def _ownership(self, instruction: ins.Copy, root: MergedTree) -> Ownership:
        mode = None
        if instruction.chmod:
            if not instruction.chmod.isdigit() or int(instruction.chmod, 8) > 0o7777:
                raise UnsupportedInstruction(f"--chmod={instruction.chmod}: a mode that is not octal")
            mode = int(instruction.chmod, 8)
        if not instruction.chown:
            return Ownership(mode=mode)
        user, _, group = instruction.chown.partition(":")
        tars = [self._workshop.intake.content.path(d) for d in self.state.config.diff_ids]
        files = FileSource(root, tars)
        uid, primary = _look_up(files, b"etc/passwd", user, "user")
        gid = _look_up(files, b"etc/group", group, "group")[0] if group else primary
        return Ownership(uid, gid, mode)

    async def _workdir(self, instruction: ins.Workdir) -> None:
        run = config.change(self.state.run, instruction)
        plan = CopyPlan(await self.root_tree(), Ownership())
        plan.make_directory(str(run["WorkingDir"]))
        if plan.items:
            await self._write_plan(plan, instruction.source, instruction.source, run=run)
        else:
            await self._change_config(instruction)

    async def _write_plan(
        self, plan: CopyPlan, created_by: str, key_text: str, run: Mapping[str, Any] | None = None
    ) -> None:
        digest = await asyncio.to_thread(plan.digest)
        key = BuildCache.key(self.state.image_id, "copy", key_text, digest)
        if await self._reuse(key, run or self.state.run):
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

    async def _reuse(self, key: str, run: Mapping[str, Any]) -> bool:
        if not self._workshop.use_cache:
            return False
        image_id = await self._workshop.cache.find(key)
        if image_id is None:
            return False
        self._workshop.report(" ---> Using cache\n")
        image = self._workshop.images.get(image_id)
        self._workshop.lease.add(*image.blobs)
        self._move_to(image)
        return True

    def _move_to(self, image: Image) -> None:
        self.state.config = image.config
        self.state.image_id = image.image_id
        self.state.run = dict(image.config.run_document)
        self._workshop.report(f" ---> {image.image_id.hex[:12]}\n")


def _command(run: Mapping[str, Any], instruction: ins.Run) -> tuple[list[str], list[tuple[str, str]]]:
    """A RUN's words, and the files that its here-documents need."""
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


def _look_up(files: FileSource, path: bytes, name: str, kind: str) -> tuple[int, int]:
    """(ID, primary group) of a user, or (ID, ID) of a group, by the stage's own files."""
    node = files.tree.lookup(path)
    text = files.read(node).decode("utf-8", "replace") if node is not None and node.is_regular else ""
    for line in text.splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and name in (parts[0], parts[2]) and parts[2].isdigit():
            number = int(parts[2])
            return number, int(parts[3]) if kind == "user" and parts[3].isdigit() else number
    if not name.isdigit():
        raise BuildFailed(f"unable to convert uid/gid chown string to host mapping: can't find {kind} {name}")
    return int(name), int(name) if kind == "group" else 0


async def _stored_bytes(source: FileSource, node: Node) -> AsyncIterator[bytes]:
    """A regular file's bytes as they lie in its tar, in pieces."""
    position, end = node.offset, node.offset + node.size
    with open(source.tars[node.layer], "rb") as file:  # noqa: ASYNC230 - a local file, read in pieces
        file.seek(position)
        while data := file.read(min(_READ_BYTES, end - position)):
            position += len(data)
            yield data


def new_state(image: Image | None) -> StageState:
    """The state of a stage at its beginning: over an image, or from scratch."""
    if image is None:
        return StageState(ImageConfig.empty(), None, {})
    return StageState(image.config, image.image_id, dict(image.config.run_document))
