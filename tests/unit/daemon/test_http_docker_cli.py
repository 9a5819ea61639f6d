"""Docker's own command line talks to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from lamina.errors import NotFound
from lamina.http import Request, Response, Server, json_response

pytestmark = pytest.mark.skipif(shutil.which("docker") is None, reason="docker's command line is not installed")


async def toy(request: Request) -> Response:
    if request.path == "/_ping":
        return Response(200, b"OK", "text/plain; charset=utf-8")
    if request.path.endswith("/version"):
        return json_response({"Version": "0.9-toy", "ApiVersion": "1.51", "Os": "linux", "Arch": "amd64"})
    raise NotFound("No such container: gone")


async def docker(host: str, config: Path, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        "docker",
        *("-H", host, *arguments),
        env={"PATH": os.environ["PATH"], "HOME": str(config), "DOCKER_CONFIG": str(config)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode().strip(), err.decode().strip()


async def test_docker_reads_versions_and_errors(tmp_path: Path) -> None:
    server = Server(toy, {"Api-Version": "1.51", "Docker-Experimental": "false", "Ostype": "linux"})
    host = await server.listen(f"unix://{tmp_path}/s")
    try:
        code, out, err = await docker(host, tmp_path, "version", "--format", "{{.Server.Version}}")
        assert (code, out) == (0, "0.9-toy"), err
        code, _, err = await docker(host, tmp_path, "container", "inspect", "gone")
        assert code == 1
        assert "No such container: gone" in err
    finally:
        await server.close(0)
