"""Lint: what is allowed in a Dockerfile and yet most likely not meant.

The rules, their names and their messages are those of BuildKit's build checks (docs.docker.com/reference/build-checks), so that what is
known about them from there holds here; docs/lint.md says it in short. ``rules`` is the table of them, ``written`` checks the text alone,
``bases`` the FROM lines with the arguments before the first, ``stages`` what a stage's instructions do in their order, ``options`` reads
``# check=``, ``report`` shows what was found.

Like the language itself this is pure: what lies outside the Dockerfile, such as base images, is handed in.
"""

from lamina.dockerfile.lint.linter import BaseImage, lint, platform_args
from lamina.dockerfile.lint.options import CheckOptions
from lamina.dockerfile.lint.report import LintViolation, LintWarning, render_check, render_summary

__all__ = [
    "BaseImage",
    "CheckOptions",
    "LintViolation",
    "LintWarning",
    "lint",
    "platform_args",
    "render_check",
    "render_summary",
]
