"""RUN as a step: from what is written in the Dockerfile to a command with its surroundings, and to what its outcome depends on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.build import config, progress
from lamina.build.cache.explain import StepInputs, each, whole
from lamina.build.cache.history import any_layer
from lamina.build.cache.outcomes import step_key
from lamina.build.context.source import FileSource
from lamina.build.copy.finding import find_path
from lamina.build.copy.plan import CopyPlan, Ownership
from lamina.build.copy.step import name_plan
from lamina.build.errors import CommandFailed, ForeignPlatform, NotEntitled
from lamina.build.request import BuildRequest
from lamina.build.run.mounting import PlacedMount
from lamina.build.run.mounts import RunMount
from lamina.build.run.running import RunRequest
from lamina.build.stage_state import StageState
from lamina.build.steps import Steps
from lamina.build.workshop import Workshop
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.errors import DockerfileError
from lamina.image.mutate import append
from lamina.layer.ingest import IngestedLayer
from lamina.layer.tree import MergedTree
from lamina.linux.binfmt import can_run
from lamina.oci.config import History
from lamina.oci.digest import DiffID, chain_id
from lamina.oci.platform import Platform


@dataclass(frozen=True)
class RunStep:
    """Carries out the RUN instructions of one stage."""

    workshop: Workshop
    state: StageState
    steps: Steps

    async def carry_out(
        self, instruction: ins.Run, step: progress.Step, context: FileSource, source_of: Mapping[str, FileSource]
    ) -> bool:
        """Run a command or find what it once made; returns whether it was found. Raises CommandFailed, DockerfileError, BuildFailed."""
        self._check_rights(instruction)
        mounts = [await self._place_mount(RunMount.of(m), context, source_of) for m in instruction.mounts]
        request = self._request(instruction, mounts)
        build_env = [f"{name}={value}" for name, value in sorted(self.state.args.items())]
        prefix = f"|{len(build_env)} {' '.join(build_env)} " if build_env else ""
        created_by = f"RUN {prefix}{' '.join(request.args)}"

        async def produce(tar: Path, tree: Path) -> IngestedLayer | None:
            await self._check_platform()
            diff_ids, tell, clamp_ns = self.state.config.diff_ids, self.workshop.tell, self.workshop.clamp_ns
            outcome = await self.workshop.runner.run(
                request, diff_ids, tar, tree, step=step, tell=tell, clamp_ns=clamp_ns
            )
            if outcome.exit_code != 0:
                if request.keep_failed:
                    await self._keep_failed(outcome.layer, tar, tree, created_by)
                raise CommandFailed(" ".join(request.args), outcome.exit_code)
            return outcome.layer

        accepts = any_layer if _is_told_whole(request) else None
        return await self.steps.take(self._inputs(request, build_env), created_by, produce, accepts=accepts)

    def _request(self, instruction: ins.Run, mounts: list[PlacedMount]) -> RunRequest:
        run, build = self.state.run, self.workshop.request
        args, files = _command(run, instruction)
        build_args = [f"{name}={value}" for name, value in sorted(self.state.args.items())]
        return RunRequest(
            args=args,
            env=[*(f"{n}={v}" for n, v in build.proxies.items()), *build_args, *(run.get("Env") or [])],
            cwd=run.get("WorkingDir") or "/",
            user=run.get("User") or "",
            network=build.network if instruction.network == "default" else instruction.network,
            extra_hosts=build.extra_hosts,
            shm_size=build.shm_size,
            files=files,
            base_layers=self.state.base_layers,
            mounts=mounts,
            secret_values=build.secrets,
            agents=build.ssh,
            keep_failed=build.keep_failed,
            limits=build.limits,
            insecure=instruction.security == "insecure",
        )

    def _inputs(self, request: RunRequest, build_env: list[str]) -> StepInputs:
        """What the outcome depends on. Proxies, limits and secrets are none of it: they are the build's surroundings, not the image's."""
        root, env = self.state.root_name, self.state.run.get("Env") or []
        mounts = [mount.name for mount in request.mounts]
        words = map(repr, (list(request.args), [*build_env, *env], list(request.files), mounts))
        where = [request.network, request.cwd, request.user]
        key = step_key("run", root, *where, *words, self.workshop.epoch, *self._rarely(request))
        surroundings = [
            ("network", request.network),
            ("directory", request.cwd),
            ("user", request.user),
            ("epoch", self.workshop.epoch),
            *(("security or platform", text) for text in self._rarely(request)),
        ]
        parts = {
            "files below": whole(root),
            "instruction": whole(repr((request.args, request.files))),
            "arguments": each(text.partition("=")[::2] for text in build_env),
            "environment": each(text.partition("=")[::2] for text in env),
            "mounts": each((mount.target or mount.mount.id, repr(mount.name)) for mount in request.mounts),
            "surroundings": each(surroundings),
        }
        return StepInputs(key, parts)

    def _rarely(self, request: RunRequest) -> list[str]:
        """What a key has only where it is not as it mostly is."""
        platform = self.state.config.platform
        foreign = [] if platform.matches(Platform.of_host()) else [str(platform)]
        return [*(["insecure"] if request.insecure else []), *foreign]

    def _check_rights(self, instruction: ins.Run) -> None:
        """Raises NotEntitled."""
        if instruction.security == "insecure" and "security.insecure" not in self.workshop.request.entitlements:
            raise NotEntitled("security.insecure")

    async def _check_platform(self) -> None:
        """Raises ForeignPlatform if this machine cannot run the stage's programs."""
        platform, host = self.state.config.platform, Platform.of_host()
        if not await asyncio.to_thread(can_run, platform.architecture, host=host.architecture):
            raise ForeignPlatform(platform, host)

    async def _keep_failed(self, layer: IngestedLayer | None, tar: Path, tree: Path, created_by: str) -> None:
        """Make an image of what a command left that failed, and tell how to look into it."""
        state, workshop = self.state, self.workshop
        if layer is not None:
            workshop.intake.adopt(layer, workshop.lease, tar, tree)
        diff_id = DiffID(layer.diff_id) if layer is not None else None
        entry = History(created=workshop.now(), created_by=created_by, comment="failed", empty_layer=diff_id is None)
        # without what would stand in a shell's way
        run = {name: value for name, value in state.run.items() if name not in ("Entrypoint", "Healthcheck")}
        image = await self.steps.recorded(append(state.config, entry, layer=diff_id, run=run))
        name = image.image_id.hex[:12]
        text = f"The failed step's state is kept as image {name}; to look into it: lamina run --rm -it {name} sh\n"
        await workshop.tell(progress.Warned(text))

    async def _place_mount(
        self, mount: RunMount, context: FileSource, source_of: Mapping[str, FileSource]
    ) -> PlacedMount:
        """A mount with its target from the root, and the files that it shows. Raises DockerfileError, SourceNotFound."""
        target = config.working_directory(self.state.run, mount.target) if mount.target else ""
        if target and not target.strip("/"):
            raise DockerfileError('invalid mount target "/"')
        if mount.kind not in ("bind", "cache") or (mount.kind == "cache" and not mount.from_):
            return PlacedMount(mount, target)
        source = source_of[mount.from_] if mount.from_ else context
        found = await asyncio.to_thread(find_path, source, mount.source, "RUN --mount")
        diff_ids = source.diff_ids
        if diff_ids is not None and not found.path:
            return PlacedMount(mount, target, diff_ids, files=str(chain_id(diff_ids)))
        plan = CopyPlan(MergedTree(), Ownership())
        is_file, keep_owner = not found.node.is_directory, diff_ids is not None
        await asyncio.to_thread(plan.add_from, source, [found], "/", into_directory=is_file, keep_owner=keep_owner)
        files = await name_plan(plan)
        if diff_ids is not None:
            node = found.node  # a directory itself is no part of a plan of what is in it
            return PlacedMount(mount, target, diff_ids, files=f"{node.mode:o} {node.uid} {node.gid} {files}")
        return PlacedMount(mount, target, items=plan.items, is_file=is_file, files=files)


def _is_told_whole(request: RunRequest) -> bool:
    """Whether the words of a history tell all that a command depends on beside what lies below it.

    They have neither what it was shown, be it a mount or the script of a here-document, nor its network and its rights.
    """
    return not (request.mounts or request.files or request.insecure) and request.network == BuildRequest().network


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
