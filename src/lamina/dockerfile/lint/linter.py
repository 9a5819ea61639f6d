"""Lint as a whole: which checks see which stages."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.ignore import IgnoreRules
from lamina.dockerfile.instructions import From, Instruction
from lamina.dockerfile.lint.bases import BaseLinter
from lamina.dockerfile.lint.options import CheckOptions
from lamina.dockerfile.lint.report import Findings, LintWarning
from lamina.dockerfile.lint.stages import Scope, StageLinter, Surroundings
from lamina.dockerfile.lint.variables import global_values
from lamina.dockerfile.lint.written import check_text
from lamina.dockerfile.parser import Dockerfile, parse_line
from lamina.dockerfile.words import expand_word
from lamina.oci.platform import Platform

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class BaseImage:
    """What rules ask of the image that a stage is FROM: its variables, whether it has a SHELL, its ONBUILD triggers, its platform."""

    env: Mapping[str, str] = field(default_factory=dict)
    has_shell: bool = False
    triggers: tuple[str, ...] = ()
    platform: Platform | None = None


def platform_args(build: Platform, target: Platform, stage: str = "") -> dict[str, str]:
    """The arguments that every Dockerfile has before any is declared (Dockerfile reference, "ARG"); *stage* is the target's name."""
    values = {"TARGETSTAGE": stage or "default"}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        values |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant or "",
        }
    return values


_LINUX = Platform("linux", "amd64")


def lint(
    dockerfile: Dockerfile,
    *,
    build_args: Mapping[str, str] | None = None,
    predefined: Mapping[str, str] | None = None,
    images: Mapping[int, BaseImage] | None = None,
    ignore: IgnoreRules | None = None,
    stages: Collection[int] | None = None,
) -> list[LintWarning]:
    """What the rules have to say, from the file's top to its end.

    *predefined* are ``platform_args`` of this build, by default of linux/amd64. *images* tells of the images that stages are FROM, by the
    stage's index; of an image that is not in it any variable may come. *ignore* is the context's .dockerignore. *stages* are the indexes
    of those that the build needs, with all that they stand on; by default all. Others are checked by their text and their FROM alone.

    Raises DockerfileError if ``# check=`` cannot be read.
    """
    build_args = build_args or {}
    images = images or {}
    predefined = predefined or platform_args(_LINUX, _LINUX)
    predefined = {name: build_args.get(name, value) for name, value in predefined.items()}
    findings = Findings(dockerfile, CheckOptions.of(dockerfile, build_args))
    values = _values(dockerfile, predefined, build_args)
    around = Surroundings(build_args, values or predefined, ignore, dockerfile.escape)
    declared = (name for arg in dockerfile.global_args for name, _ in arg.pairs)
    bases = BaseLinter(findings, around.global_values, _values(dockerfile, predefined, {}), declared, dockerfile.escape)

    check_text(dockerfile, findings)
    scopes: dict[str, Scope] = {}
    for stage in dockerfile.stages:
        bases.check(stage.base)
        if stages is not None and stage.index not in stages:
            continue
        image = images.get(stage.index)
        scope = _first_scope(stage.base, scopes, image, around)
        if image and image.platform:
            bases.check_pulled(stage.base, image.platform)
        linter = StageLinter(findings, scope, around)
        triggers, scope.triggers = scope.triggers, ()
        for instruction in (*_triggered(triggers, stage.base), *stage.instructions):
            linter.take(instruction)
        if stage.name:
            scopes[stage.name] = scope
    return findings.in_order()


def _values(
    dockerfile: Dockerfile, predefined: Mapping[str, str], build_args: Mapping[str, str]
) -> dict[str, str] | None:
    """The global arguments' values; None if a default cannot be expanded."""
    try:
        return global_values(dockerfile.global_args, predefined, build_args, dockerfile.escape)
    except DockerfileError:
        return None


def _first_scope(base: From, scopes: Mapping[str, Scope], image: BaseImage | None, around: Surroundings) -> Scope:
    """The scope before a stage's first instruction, with the triggers that come before that."""
    try:
        name = expand_word(base.image, around.global_values, around.escape)
    except DockerfileError:
        name = ""
    if name in scopes:
        return scopes[name].inherited()
    if image is None:
        return Scope({"PATH": _PATH}, knows_env=name == "scratch")
    return Scope({"PATH": _PATH, **image.env}, has_shell=image.has_shell, triggers=image.triggers)


def _triggered(triggers: Sequence[str], base: From) -> Iterator[Instruction]:
    """ONBUILD's instructions, which stand in the child where its FROM does."""
    for trigger in triggers:
        try:
            yield replace(parse_line(trigger), first=base.first, last=base.last)
        except DockerfileError:
            continue
