"""``RUN --mount``: what its options mean, and which are refused, as BuildKit has it."""

from __future__ import annotations

from typing import cast

import pytest

from lamina.build.run.mounts import RunMount
from lamina.dockerfile import DockerfileError
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.parser import parse_line


def _mount(text: str) -> RunMount:
    return RunMount.of(cast(ins.Run, parse_line(f"RUN --mount={text} x")).mounts[0])


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("type=CACHE,target=/c", "kind", "cache"),
        ("type=cache,target=/c,sharing=Locked", "sharing", "locked"),
        ("type=cache,target=/c", "read_only", False),
        ("type=cache,target=/c,readonly", "read_only", True),
        ("target=/c", "read_only", True),
        ("target=/c,rw", "read_only", False),
        ("target=/c,rw=F", "read_only", True),
        ("target=/c,ro=0", "read_only", False),
        ("type=tmpfs,target=/t", "read_only", False),
        ("type=tmpfs,target=/t,ro", "read_only", True),
        ("type=tmpfs,target=/t,size=64MiB", "size", 64 << 20),
        ("type=tmpfs,target=/t,size=1.5m", "size", 3 << 19),
        ("type=tmpfs,target=/t,size=2KB", "size", 2048),
        ("type=tmpfs,target=/t,size=100b", "size", 100),
        ("type=tmpfs,target=/t,size=100", "size", 100),
        ("type=cache,target=/c/", "id", "/c"),
        ("type=cache,target=//c/./d/../", "id", "/c"),
        ("type=cache,target=/c/,id=x/", "id", "x/"),
        ("type=secret,target=/run/key", "id", "key"),
        ("type=secret,source=a/b", "target", "/run/secrets/b"),
        ("type=secret,required,id=a", "required", True),
        ("type=ssh,required=false", "required", False),
        ("type=ssh", "mode", 0o600),
        ("type=ssh,mode=0666,uid=1,gid=4294967294", "gid", 4294967294),
    ],
)
def test_an_option_means_what_buildkit_takes_it_for(text: str, field: str, value: object) -> None:
    assert getattr(_mount(text), field) == value


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("type=cahce,target=/c", 'unsupported mount type "cahce" (did you mean cache?)'),
        ("type=cache,target=/c,sharing=shard", 'unsupported sharing value "shard" (did you mean shared?)'),
        ("type=cache,targt=/c", "unexpected key 'targt' in 'targt=/c' (did you mean target?)"),
        ("type=cache,target", "invalid field 'target' must be a key=value pair"),
        ("target=/c,ro=maybe", "invalid value for ro: maybe"),
        ("target=/c,ro=", "invalid value for ro: "),
        ("target=/c,required", "unexpected key 'required' for mount type 'bind'"),
        ("target=/c,size=1", "unexpected key 'size' for mount type 'bind'"),
        ("target=/c,uid=1", 'uid not allowed for "bind" type mounts'),
        ("type=tmpfs,target=/t,mode=1777", 'mode not allowed for "tmpfs" type mounts'),
        ("type=tmpfs,target=/t,size=1x", "invalid value for size: 1x"),
        ("type=tmpfs,target=/t,sharing=locked", "invalid cache sharing set for tmpfs mount"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=secret,id=a,from=b", "secret mount should not have a from"),
        ("type=secret,id=a,sharing=locked", "secret mount should not define sharing"),
        ("type=secret,env=A", "invalid secret mount. one of source, target required"),
        ("type=ssh,mode=0o600", "invalid value 0o600 for mode"),
        ("type=ssh,uid=4294967295", "invalid value 4294967295 for uid"),
    ],
)
def test_what_means_nothing_is_refused_in_buildkits_words(text: str, detail: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        _mount(text)
    assert caught.value.detail == detail
