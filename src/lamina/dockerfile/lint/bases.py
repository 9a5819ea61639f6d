"""Rules for FROM: its arguments, its platform, its image's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lamina.dockerfile.errors import DockerfileError
from lamina.dockerfile.instructions import From
from lamina.dockerfile.lint import rules
from lamina.dockerfile.lint.report import Findings
from lamina.dockerfile.lint.variables import Lookups, did_you_mean
from lamina.dockerfile.words import expand_word
from lamina.oci.platform import InvalidPlatform, Platform
from lamina.oci.reference import InvalidReference, Reference

TARGET_PLATFORM = "TARGETPLATFORM"


class BaseLinter:
    """Checks the FROM lines of one Dockerfile.

    *values* are those of the global arguments in this build, *defaults* those without build arguments (None if they cannot be had),
    *declared* the names of all that are declared, with a value or without.
    """

    def __init__(
        self,
        findings: Findings,
        values: Mapping[str, str],
        defaults: Mapping[str, str] | None,
        declared: Iterable[str],
        escape: str,
    ) -> None:
        self._findings = findings
        self._values = values
        self._defaults = defaults
        self._known = sorted({*declared, *values})
        self._escape = escape

    def check(self, base: From) -> None:
        """Report what is wrong with one FROM."""
        self._check_default_name(base)
        _, lookups = self._expanded(base.image)
        self._report_undeclared(base, lookups)
        if base.platform:
            platform, lookups = self._expanded(base.platform)
            self._report_undeclared(base, lookups)
            self._check_platform(base, platform, lookups)

    def check_pulled(self, base: From, pulled: Platform) -> None:
        """Report if the image at hand is of another platform than the one asked for."""
        text, _ = self._expanded(base.platform or f"${TARGET_PLATFORM}")
        name, _ = self._expanded(base.image)
        wanted = _platform(text)
        if wanted and wanted[:2] != pulled[:2]:
            self._findings.add(rules.INVALID_BASE_IMAGE_PLATFORM, base.lines, name, _shown(pulled), _shown(wanted))

    def _expanded(self, word: str) -> tuple[str, Lookups]:
        """A word with its arguments; empty if that cannot be, which the build itself will say."""
        lookups = Lookups(self._values)
        try:
            return expand_word(word, lookups, self._escape), lookups
        except DockerfileError:
            return "", lookups

    def _report_undeclared(self, base: From, lookups: Lookups) -> None:
        for name in lookups.missing:
            if name not in self._known:
                hint = did_you_mean(name, self._known)
                self._findings.add(rules.UNDEFINED_ARG_IN_FROM, base.lines, name, hint)

    def _check_platform(self, base: From, platform: str, lookups: Lookups) -> None:
        if lookups.missing:
            return
        if list(lookups.found) == [TARGET_PLATFORM] and platform == self._values[TARGET_PLATFORM]:
            self._findings.add(rules.REDUNDANT_TARGET_PLATFORM, base.lines, base.platform)
        parsed = _platform(platform)
        if parsed and not lookups.found and not (parsed.os in base.name or parsed.architecture in base.name):
            self._findings.add(rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, base.lines, platform)

    def _check_default_name(self, base: From) -> None:
        if self._defaults is None:
            return
        try:
            Reference.parse(expand_word(base.image, self._defaults, self._escape))
        except InvalidReference:
            self._findings.add(rules.INVALID_DEFAULT_ARG_IN_FROM, base.lines, base.image)
        except DockerfileError:
            return


def _platform(text: str) -> Platform | None:
    try:
        return Platform.parse(text)
    except InvalidPlatform:
        return None


def _shown(platform: Platform) -> str:
    """A platform as BuildKit names it: the one variant of arm64 goes without saying."""
    return str(platform._replace(variant=None) if platform[1:] == ("arm64", "v8") else platform)
