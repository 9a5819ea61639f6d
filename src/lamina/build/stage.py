"""One stage: instructions carried out one after another, each making an image from the one before it.

Every step's image is recorded, as the classic builder does: it is what ``history`` shows as the next one's parent. What a step makes is
found in the cache by what it depends on (``cache``); the image around it is made anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.build import config, progress
from lamina.build.archives import open_archive
from lamina.build.cache import BuildCache, Outcome, step_key
from lamina.build.copying import CopyPlan, Ownership, bytes_to_read, plan_digest, write_plan
from lamina.build.errors import CommandFailed, UnsupportedInstruction
from lamina.build.explain import BuildMemory, StepInputs, each, files, whole
from lamina.build.fetching import Fetcher
from lamina.build.finding import Found, find
from lamina.build.flatten import write_flat
from lamina.build.mounting import PlacedMount
from lamina.build.mounts import RunMount
from lamina.build.named import NamedContexts
from lamina.build.ownership import resolve_ownership
from lamina.build.remote import GitRepository, HttpUrl, LocalPath, parse_source
from lamina.build.request import BuildRequest
from lamina.build.running import RunRequest, StepRunner
from lamina.build.source import FileSource, TarContents
from lamina.content.store import Lease
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.words import expand_word
from lamina.image.intake import LayerIntake
from lamina.image.mutate import append, plain_manifest, squashed, timestamp
from lamina.image.store import Hold, Image, ImageStore
from lamina.layer.ingest import IngestedLayer
from lamina.layer.merge import apply_layer
from lamina.layer.tree import MergedTree, load
from lamina.linux.worker import run_in_worker
from lamina.oci.config import History, ImageConfig
from lamina.oci.digest import DiffID, Digest, ImageID, chain_id

PREDEFINED_ARGS = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "ftp_proxy",
                   "no_proxy", "all_proxy")  # fmt: skip

_SMALL_BYTES = 4 << 20
_SMALL_ITEMS = 500
"""What is smaller is hashed and written in a thread; starting a worker would cost more."""

Produce = Callable[[Path, Path], Awaitable[IngestedLayer | None]]
"""Carries out a step: writes its layer's tar and tree to these paths; None if it changed no file."""


@dataclass(frozen=True)
class Workshop:
    """What carrying out steps needs: the services, and what the whole build shares. ``slots`` bounds the steps that run at once."""

    images: ImageStore
    intake: LayerIntake
    runner: StepRunner
    cache: BuildCache
    lease: Lease
    hold: Hold
    directory: Path
    fetcher: Fetcher
    contexts: NamedContexts
    request: BuildRequest
    tell: progress.Tell
    slots: asyncio.Semaphore
    fresh: dict[str, Outcome] = field(default_factory=dict)
    memory: BuildMemory = field(default_factory=BuildMemory)

    def keep(self, image: Image) -> None:
        """Keep an image and its blobs from being removed for the length of the build. Raises ImageNotFound."""
        self.hold.add(image.image_id)
        self.lease.add(*image.blobs)

    @property
    def clamp_ns(self) -> int | None:
        """The latest time that a file of the image may have (SOURCE_DATE_EPOCH)."""
        epoch = self.request.source_date_epoch_s
        return None if epoch is None else epoch * 1_000_000_000


@dataclass
class StageState:
    """A stage so far: its image (None for scratch), what the next image's JSON starts from, the ARGs in scope."""

    config: ImageConfig
    image_id: ImageID | None
    run: dict[str, Any]
    args: dict[str, str] = field(default_factory=dict)
    base_layers: int = 0
    base_id: ImageID | None = None
    has_own_command: bool = False
    tree: MergedTree | None = None
    layers_in_tree: int = 0

    @property
    def variables(self) -> dict[str, str]:
        """What ``$NAME`` means here: ENV wins over ARG."""
        return {**self.args, **config.environment(self.run)}

    @property
    def root_name(self) -> str:
        """Names the files of the stage so far."""
        return str(self.config.chain_id)


def new_state(image: Image | None) -> StageState:
    """The state of a stage at its beginning: over an image, or from scratch."""
    if image is None:
        return StageState(ImageConfig.empty(), None, config.with_default_path({}))
    run = config.with_default_path(image.config.run_document)
    return StageState(image.config, image.image_id, run, base_layers=len(image.config.diff_ids), base_id=image.image_id)


class StageBuilder:
    """Carries out the instructions of stage number *stage*. ``reason`` is why the last one was, or was not."""

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
        self._stage = stage
        self._steps_done = 0
        self.reason = ""
        self.state = state
        self._escape = escape
        self._global_args = global_args
        self._use_cache = use_cache

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
            return await self._run(instruction, step, context, source_of)
        if isinstance(instruction, ins.Copy):
            return await self._copy(instruction, context, source_of)
        if isinstance(instruction, ins.Workdir):
            return await self._workdir(instruction)
        if isinstance(instruction, ins.Arg):
            self._declare(instruction)
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
        outcome, _ = await self._outcome(key, "squash", produce)
        said = f"merge {state.image_id} to {state.base_id}" if state.base_id else f"create new from {state.image_id}"
        await self._go_on(squashed(base, state.config, outcome.layer, created=outcome.created, comment=said))

    async def file_source(self, place: str) -> FileSource:
        """The stage's files, for another stage's COPY --from."""
        return FileSource(await self.root_tree(), self._contents(), place=place, diff_ids=self.state.config.diff_ids)

    async def root_tree(self) -> MergedTree:
        """What the stage's root shows, brought up to its last layer."""
        state = self.state
        if state.tree is None:
            state.tree = MergedTree()
        pending = list(state.config.diff_ids[state.layers_in_tree :])
        paths = await self._workshop.intake.trees.paths(pending)
        await asyncio.to_thread(_apply, state, paths)
        return state.tree

    def _contents(self) -> TarContents:
        return TarContents(tuple(self._workshop.intake.content.path(d) for d in self.state.config.diff_ids))

    def _declare(self, instruction: ins.Arg) -> None:
        given = self._workshop.request.build_args
        for name, default in instruction.pairs:
            if name in given:
                self.state.args[name] = given[name]
            elif default is not None:
                self.state.args[name] = default
            elif name in self._global_args:
                self.state.args[name] = self._global_args[name]

    # steps that change the JSON alone

    async def _change_config(self, instruction: ins.Instruction) -> bool:
        run = config.change(self.state.run, instruction, keep_command=self.state.has_own_command)
        text = config.described(self.state.run, instruction)
        key = step_key("config", self.state.root_name, repr(sorted(self.state.run.items(), key=str)), text)
        author = instruction.text if isinstance(instruction, ins.Maintainer) else None
        before = repr(sorted(self.state.run.items(), key=str))
        parts = {"files below": whole(self.state.root_name), "configuration": whole(before), "instruction": whole(text)}
        return await self._step(StepInputs(key, parts), text, run=run, author=author)

    # RUN

    async def _run(
        self, instruction: ins.Run, step: progress.Step, context: FileSource, source_of: Mapping[str, FileSource]
    ) -> bool:
        if instruction.security != "sandbox":
            raise UnsupportedInstruction("RUN --security=insecure")
        run, request = self.state.run, self._workshop.request
        args, command_files = _command(run, instruction)
        network = request.network if instruction.network == "default" else instruction.network
        build_env = [f"{name}={value}" for name, value in sorted(self.state.args.items())]
        env = [*build_env, *(run.get("Env") or [])]
        cwd, user = run.get("WorkingDir") or "/", run.get("User") or ""
        prefix = f"|{len(build_env)} {' '.join(build_env)} " if build_env else ""
        mounts = [await self._place_mount(text, context, source_of) for text in instruction.mounts]
        names = [await asyncio.to_thread(_mount_name, mount) for mount in mounts]
        words = (repr(args), repr(env), repr(command_files), repr(names))
        key = step_key("run", self.state.root_name, network, cwd, user, *words, self._epoch())
        proxies = [f"{n}={v}" for n, v in request.build_args.items() if n in PREDEFINED_ARGS]
        wanted = RunRequest(
            args=args,
            env=[*proxies, *env],
            cwd=cwd,
            user=user,
            network=network,
            extra_hosts=request.extra_hosts,
            shm_size=request.shm_size,
            files=command_files,
            base_layers=self.state.base_layers,
            mounts=mounts,
            secret_values=request.secrets,
            agents=request.ssh,
            keep_failed=request.keep_failed,
        )
        created_by = f"RUN {prefix}{' '.join(args)}"

        async def produce(tar: Path, tree: Path) -> IngestedLayer | None:
            diff_ids, clamp_ns = self.state.config.diff_ids, self._workshop.clamp_ns
            outcome = await self._workshop.runner.run(
                wanted, diff_ids, tar, tree, step=step, tell=self._workshop.tell, clamp_ns=clamp_ns
            )
            if outcome.exit_code != 0:
                if request.keep_failed:
                    await self._keep_failed(outcome.layer, tar, tree, created_by)
                raise CommandFailed(" ".join(args), outcome.exit_code)
            return outcome.layer

        parts = {
            "files below": whole(self.state.root_name),
            "instruction": whole(repr((args, command_files))),
            "arguments": each(text.partition("=")[::2] for text in build_env),
            "environment": each(text.partition("=")[::2] for text in run.get("Env") or []),
            "mounts": each((mount.target or mount.mount.id, repr(n)) for mount, n in zip(mounts, names, strict=True)),
            "surroundings": each([("network", network), ("directory", cwd), ("user", user), ("epoch", self._epoch())]),
        }
        return await self._step(StepInputs(key, parts), created_by, produce)

    async def _keep_failed(self, layer: IngestedLayer | None, tar: Path, tree: Path, created_by: str) -> None:
        """Make an image of what a command left that failed, and tell how to look into it."""
        state, workshop = self.state, self._workshop
        if layer is not None:
            workshop.intake.adopt(layer, workshop.lease, tar, tree)
        diff_id = DiffID(layer.diff_id) if layer is not None else None
        entry = History(created=self._now(), created_by=created_by, comment="failed", empty_layer=diff_id is None)
        # without what would stand in a shell's way
        run = {name: value for name, value in state.run.items() if name not in ("Entrypoint", "Healthcheck")}
        image = await self._recorded(append(state.config, entry, layer=diff_id, run=run))
        name = image.image_id.hex[:12]
        text = f"The failed step's state is kept as image {name}; to look into it: lamina run --rm -it {name} sh\n"
        await workshop.tell(progress.Warned(text))

    async def _place_mount(self, text: str, context: FileSource, source_of: Mapping[str, FileSource]) -> PlacedMount:
        """A mount with its target from the root, and the files that it shows."""
        mount = RunMount.parse(text)
        target = config.working_directory(self.state.run, mount.target) if mount.target else ""
        if mount.kind not in ("bind", "cache") or (mount.kind == "cache" and not mount.from_):
            return PlacedMount(mount, target)
        source = source_of[mount.from_] if mount.from_ else context
        if source.diff_ids is not None:
            return PlacedMount(mount, target, diff_ids=source.diff_ids)
        plan = CopyPlan(MergedTree(), Ownership())
        found = await asyncio.to_thread(find, source, mount.source or "/", "RUN --mount")
        is_file = bool(found) and not found[0].node.is_directory
        await asyncio.to_thread(plan.add_from, source, found, "/", into_directory=is_file, keep_owner=False)
        return PlacedMount(mount, target, items=plan.items, is_file=is_file)

    # COPY, ADD and WORKDIR

    async def _copy(self, instruction: ins.Copy, context: FileSource, source_of: Mapping[str, FileSource]) -> bool:
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        root = await self.root_tree()
        own_files = FileSource(root, self._contents())
        ownership = resolve_ownership(own_files, instruction.chown, instruction.chmod)
        plan = CopyPlan(MergedTree() if instruction.link else root, ownership)
        source = source_of[instruction.from_] if instruction.from_ else context
        several = len(instruction.sources) > 1
        if several and not instruction.destination.endswith("/"):
            raise DockerfileError(
                f"When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )
        for name in instruction.sources:
            await self._plan_source(plan, instruction, name, source, several=several)
        if not plan.items:
            raise DockerfileError(f"{keyword} failed: no source files were specified")
        return await self._write_plan(plan, config.described(self.state.run, instruction))

    async def _plan_source(
        self, plan: CopyPlan, instruction: ins.Copy, name: str, source: FileSource, *, several: bool
    ) -> None:
        destination = _destination(self.state.run, instruction.destination)
        if name.startswith("<<"):
            self._plan_heredoc(plan, instruction, name, destination, several=several)
            return
        keyword = "ADD" if isinstance(instruction, ins.Add) else "COPY"
        remote = parse_source(name) if isinstance(instruction, ins.Add) else LocalPath(name)
        if isinstance(instruction, ins.Add) and not isinstance(remote, LocalPath):
            await self._plan_remote(plan, instruction, remote, destination, several=several)
            return
        if instruction.parents:
            await asyncio.to_thread(
                plan.add_with_parents,
                source,
                name,
                destination,
                keyword=keyword,
                keep_owner=bool(instruction.from_),
                exclude=instruction.exclude,
            )
            return
        found = await asyncio.to_thread(find, source, name, keyword)
        several = several or len(found) > 1
        if isinstance(instruction, ins.Add) and instruction.unpack is not False:
            found = await self._plan_archives(plan, found, source, destination)
        await asyncio.to_thread(
            plan.add_from,
            source,
            found,
            destination,
            into_directory=several,
            keep_owner=bool(instruction.from_),
            exclude=instruction.exclude,
        )

    async def _plan_remote(
        self,
        plan: CopyPlan,
        instruction: ins.Add,
        remote: HttpUrl | GitRepository,
        destination: str,
        *,
        several: bool,
    ) -> None:
        """ADD from a URL or a repository; a file that was downloaded is extracted only if that is asked for."""
        fetcher = self._workshop.fetcher
        if isinstance(remote, GitRepository):
            keep = instruction.keep_git_dir or None
            files = await fetcher.repository(remote.with_flags(keep_git_dir=keep, checksum=instruction.checksum))
            await asyncio.to_thread(
                plan.add_from,
                files,
                [Found(b"", files.tree.root)],
                destination,
                into_directory=several,
                keep_owner=False,
                exclude=instruction.exclude,
            )
            return
        checksum = Digest.parse(instruction.checksum) if instruction.checksum else None
        file = await fetcher.file(remote, checksum)
        found = [Found(file.name, file.node, file.name)]
        if instruction.unpack:
            found = await self._plan_archives(plan, found, file, destination)
        plan.add_from(file, found, destination, into_directory=several, keep_owner=False)

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
        limits, directory = self._workshop.intake.limits, self._workshop.directory
        for file in found:
            is_candidate = file.node.is_regular and file.node.size > 0
            archive = await open_archive(source, file.path, file.node, directory, limits) if is_candidate else None
            if archive is None:
                others.append(file)
            else:
                plan.add_tree(archive, destination)
        return others

    async def _workdir(self, instruction: ins.Workdir) -> bool:
        run = config.change(self.state.run, instruction)
        plan = CopyPlan(await self.root_tree(), Ownership())
        plan.make_directory(str(run["WorkingDir"]))
        if not plan.items:
            return await self._change_config(instruction)
        return await self._write_plan(plan, config.described(self.state.run, instruction), run=run)

    async def _write_plan(self, plan: CopyPlan, created_by: str, run: Mapping[str, Any] | None = None) -> bool:
        items = plan.items
        if bytes_to_read(items, unknown_only=True) < _SMALL_BYTES:
            digest = await asyncio.to_thread(plan_digest, items)
        else:
            digest = await run_in_worker(plan_digest, (), items)

        async def produce(tar: Path, tree: Path) -> IngestedLayer | None:
            clamp_ns = self._workshop.clamp_ns
            if bytes_to_read(items) < _SMALL_BYTES and len(items) < _SMALL_ITEMS:
                return await asyncio.to_thread(write_plan, items, tar, tree, clamp_ns)
            return await run_in_worker(write_plan, (), items, tar, tree, clamp_ns)

        inputs = StepInputs(
            step_key("copy", digest, self._epoch()),
            {"files": files(items, digest), "surroundings": each([("epoch", self._epoch())])},
        )
        return await self._step(inputs, created_by, produce, run=run)

    # what all steps have in common

    def _epoch(self) -> str:
        epoch = self._workshop.request.source_date_epoch_s
        return "" if epoch is None else str(epoch)

    async def _step(
        self,
        inputs: StepInputs,
        created_by: str,
        produce: Produce | None = None,
        *,
        run: Mapping[str, Any] | None = None,
        author: str | None = None,
    ) -> bool:
        """Find a step's outcome or make it, and go on from there; returns whether it was found."""
        outcome, cached = await self._outcome(inputs.key, created_by, produce)
        place = f"{self._stage}/{self._steps_done}"
        self._steps_done += 1
        self.reason = self._workshop.memory.explain(place, inputs, cached=cached, use_cache=self._use_cache)
        entry = History(
            created=outcome.created, created_by=created_by, empty_layer=outcome.layer is None, author=author
        )
        state = self.state
        run = state.run if run is None else run
        await self._go_on(append(state.config, entry, layer=outcome.layer, run=run, author=author))
        return cached

    async def _outcome(self, key: str, created_by: str, produce: Produce | None) -> tuple[Outcome, bool]:
        """A step's outcome, and whether it was found."""
        workshop = self._workshop
        async with workshop.cache.computing(key):
            outcome = await self._find(key)
            cached = outcome is not None
            if outcome is None:
                layer = None
                if produce is not None:
                    async with workshop.slots, self._scratch_layer() as (tar, tree):
                        made = await produce(tar, tree)
                        if made is not None:
                            workshop.intake.adopt(made, workshop.lease, tar, tree)
                            layer = DiffID(made.diff_id)
                outcome = Outcome(layer, self._now())
                workshop.fresh[key] = outcome
                await workshop.cache.put(key, outcome, created_by)
        return outcome, cached

    async def _find(self, key: str) -> Outcome | None:
        outcome = self._workshop.fresh.get(key)
        if outcome is None and self._use_cache:
            outcome = await self._workshop.cache.find(key)
        if outcome is not None and outcome.layer is not None:
            self._workshop.lease.add(outcome.layer)
        return outcome

    def _now(self) -> str:
        return timestamp(epoch_s=self._workshop.request.source_date_epoch_s)

    @asynccontextmanager
    async def _scratch_layer(self) -> AsyncIterator[tuple[Path, Path]]:
        """Names for a layer's tar and tree on their way; nothing under them is left."""
        intake = self._workshop.intake
        tar, tree = intake.content.temporary_path(), intake.trees.temporary_path()
        try:
            yield tar, tree
        finally:
            tar.unlink(missing_ok=True)
            tree.unlink(missing_ok=True)

    async def _go_on(self, made: ImageConfig) -> None:
        """Go on from an image, which is recorded unless it is there already."""
        image, state = await self._recorded(made), self.state
        state.config = image.config
        state.image_id = image.image_id
        state.run = dict(image.config.run_document)

    async def _recorded(self, made: ImageConfig) -> Image:
        """The image of a config, made from the stage so far."""
        workshop = self._workshop
        if made.image_id in workshop.images:
            image = workshop.images.get(made.image_id)
        else:
            sizes = [workshop.intake.content.size(d) for d in made.diff_ids]
            image = await workshop.images.add(made, plain_manifest(made, sizes), parent=self.state.image_id)
        workshop.keep(image)
        return image


def _mount_name(placed: PlacedMount) -> tuple[str, ...]:
    """What of a mount a step's outcome depends on; what a cache, a secret or an agent holds is none of it. Blocking."""
    mount = placed.mount
    files = str(chain_id(placed.diff_ids)) if placed.diff_ids is not None else ""
    files = plan_digest(placed.items) if placed.items is not None else files
    return (mount.kind, placed.target, mount.id, mount.env, mount.source if placed.diff_ids is not None else "", files)


def _apply(state: StageState, trees: Sequence[Path]) -> None:
    assert state.tree is not None
    for path in trees:
        apply_layer(state.tree, load(path), state.layers_in_tree)
        state.layers_in_tree += 1


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
