"""The rules: names, descriptions and messages, word for word BuildKit's (its documentation and its tests for the linter)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WORDS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Rule:
    """A rule; *message* has ``{}`` where a single case differs. An experimental one is off unless asked for."""

    name: str
    description: str
    message: str
    is_experimental: bool = False
    is_documented: bool = True

    @property
    def url(self) -> str:
        """Where the rule is explained; empty where it is not."""
        if not self.is_documented:
            return ""
        return f"https://docs.docker.com/go/dockerfile/rule/{_WORDS.sub('-', self.name).lower()}/"


STAGE_NAME_CASING = Rule(
    "StageNameCasing",
    "Stage names should be lowercase",
    "Stage name '{}' should be lowercase",
)
FROM_AS_CASING = Rule(
    "FromAsCasing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "'{}' and '{}' keywords' casing do not match",
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation",
    "Empty continuation lines will become errors in a future release",
    "Empty continuation line",
)
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "Command '{}' should match the case of the command majority ({})",
)
DUPLICATE_STAGE_NAME = Rule(
    "DuplicateStageName",
    "Stage names should be unique",
    'Duplicate stage name "{}", stage names should be unique',
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName",
    "Reserved words should not be used as stage names",
    'Stage name should not use the same name as reserved stage "{}"',
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "Maintainer instruction is deprecated in favor of using label",
)
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom",
    "FROM command must use declared ARGs",
    "FROM argument '{}' is not declared{}",
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
    'Relative workdir "{}" can have unexpected results if the base image changes',
)
UNDEFINED_VAR = Rule(
    "UndefinedVar",
    "Variables should be defined before their use",
    "Usage of undefined variable '${}'{}",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "Multiple {} instructions should not be used in the same stage because only the last one will be used",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "Legacy key/value format with whitespace separator should not be used",
    '"{0} key=value" should be used instead of legacy "{0} key value" format',
)
INVALID_BASE_IMAGE_PLATFORM = Rule(
    "InvalidBaseImagePlatform",
    "Base image platform does not match expected target platform",
    'Base image {} was pulled with platform "{}", expected "{}" for current build',
    is_documented=False,
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "Sensitive data should not be used in the ARG or ENV commands",
    'Do not use ARG or ENV instructions for sensitive data ({} "{}")',
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "Default value for global ARG results in an empty or invalid base image name",
    "Default value for ARG {} results in empty or invalid base image name",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "FROM --platform flag should not use a constant value",
    'FROM --platform flag should not use constant value "{}"',
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile",
    "Attempting to Copy file that is excluded by .dockerignore",
    'Attempting to {} file "{}" that is excluded by .dockerignore',
    is_experimental=True,
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. "
    "If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "Comment for {} should follow the format: `# {} <description>`",
    is_experimental=True,
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing",
    "Protocol in EXPOSE instruction should be lowercase",
    "Defined protocol '{}' in EXPOSE instruction should be lowercase",
)
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
    "EXPOSE instruction should not define an IP address or host-port mapping, found '{}'",
)

RULES = tuple(value for value in vars().copy().values() if isinstance(value, Rule))
