"""Lint for a build: what the rules ask of base images and of the context, looked up here."""

from __future__ import annotations

from lamina.build.arguments import predefined_args
from lamina.build.context.source import FileSource
from lamina.build.graph import StageGraph
from lamina.build.request import BuildRequest
from lamina.dockerfile.lint import BaseImage, LintWarning, lint
from lamina.errors import LaminaError
from lamina.image.store import ImageStore


def check(graph: StageGraph, request: BuildRequest, context: FileSource, images: ImageStore) -> list[LintWarning]:
    """What lint has to say of the stages that the build needs. Blocking, for a long Dockerfile. Raises DockerfileError."""
    needed = {stage.index for stage in graph.needed(graph.targets(request.targets))}
    bases = {}
    for stage in graph.stages:
        image = (
            None
            if graph.called(graph.bases[stage.index].image, before=stage.index)
            else _base(graph, stage.index, images)
        )
        if image is not None:
            bases[stage.index] = image
    return lint(
        graph.dockerfile,
        build_args=request.build_args,
        predefined=predefined_args(request),
        images=bases,
        ignore=context.ignore_rules,
        stages=needed if request.targets else None,
    )


def _base(graph: StageGraph, index: int, images: ImageStore) -> BaseImage | None:
    try:
        image = images.find(graph.bases[index].image)
    except LaminaError:
        return None
    run = image.config.run
    return BaseImage(
        env=dict(entry.partition("=")[::2] for entry in run.env or []),
        has_shell=bool(run.shell),
        triggers=tuple(run.on_build or ()),
        platform=image.config.platform,
    )
