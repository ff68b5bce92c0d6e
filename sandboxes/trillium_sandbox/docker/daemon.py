"""The Docker engine: reach it, find the image, make a container that nothing gets out of."""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound
from docker.types import LogConfig, Ulimit
from docker.utils import kwargs_from_env

from trillium_sandbox.docker.room import Room
from trillium_sandbox.docker.sources import IMAGE, LABEL, image_folder, source_hash
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.namespaces import BOX

CALL_S = 30.0
"""How long one call to the engine may take."""

FAILURES = (DockerException, OSError)
"""What the SDK raises when the engine refuses, and when it does not answer."""

_USUAL_SOCKET = "/var/run/docker.sock"
CONTAINER_LABEL = "trillium.sandbox"

_CPUS = 2
"""Processors of one container: its zygote runs one program at a time, its supervisor beside it."""


_LEVELS = (("runsc", 4), ("gvisor", 4), ("kata", 5))


def level_of(runtime: str | None) -> int:
    """Return the level that a runtime of this name has to hold; any other is a container's."""
    name = runtime or ""
    return next((level for part, level in _LEVELS if part in name), 3)


@dataclass(frozen=True)
class Plan:
    """What every container of one backend is made from."""

    level: int
    image: str
    runtime: str | None
    profile: str
    n_cores: int
    memory_bytes: int
    kernel: str


def connect(timeout_s: float = CALL_S) -> APIClient:
    """Return a client of the engine that DOCKER_HOST names, or of the local one.

    Raises SandboxError when none answers.
    """
    host = os.environ.get("DOCKER_HOST", "")
    if host.startswith("ssh://"):
        raise SandboxError(f"docker: DOCKER_HOST={host} is ssh; forward its socket, or use tcp://")
    try:
        if not host or host.startswith("unix://"):
            _knock(host.removeprefix("unix://") or _USUAL_SOCKET, timeout_s)
        return APIClient(version="auto", timeout=timeout_s, **kwargs_from_env())
    except FAILURES as error:
        where = f"at {host}" if host else "at its usual socket"
        raise SandboxError(
            f"docker: no engine answers {where} ({brief(error)}); "
            f"start one ({image_folder()}/start-docker) or set DOCKER_HOST"
        ) from error


def _knock(path: str, timeout_s: float) -> None:
    # The SDK leaves a socket open that did not connect.
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(timeout_s)
        door.connect(path)


def look(api: APIClient, runtime: str | None) -> Plan:
    """Return what containers are made from, the image that holds this very code included.

    Raises SandboxError, with the command to run, when the image is absent or holds other code, and
    when the engine does not know the runtime.
    """
    build = image_folder() / "build"
    facts = api.info()
    if runtime is not None and runtime not in facts["Runtimes"]:
        known = ", ".join(sorted(facts["Runtimes"]))
        raise SandboxError(f"docker: the engine has no runtime {runtime!r} ({known}); install it")
    try:
        image = api.inspect_image(IMAGE)
    except ImageNotFound as error:
        raise SandboxError(f"docker: image {IMAGE} is missing; run {build}") from error
    if (image["Config"]["Labels"] or {}).get(LABEL) != source_hash():
        raise SandboxError(f"docker: image {IMAGE} holds other code than this; run {build}")
    profile = Path(image_folder(), "seccomp.json").read_text()
    return Plan(
        level=level_of(runtime),
        image=image["Id"],
        runtime=runtime,
        profile=profile,
        n_cores=facts["NCPU"],
        memory_bytes=facts["MemTotal"],
        kernel=facts["KernelVersion"],
    )


def create(api: APIClient, plan: Plan, room: Room) -> str:
    """Create a container that waits to be started, and return its id."""
    memory_bytes = min(room.total_memory_bytes, plan.memory_bytes)
    folder = f"size={room.disk_bytes},nr_inodes={room.n_inodes},mode=0777,nosuid,nodev,noexec"
    folders = {BOX: folder}
    if plan.level == 4:  # gVisor makes a /tmp that everybody may write to, where there is none
        folders["/tmp"] = "size=4096,mode=0755,nosuid,nodev,noexec"
    walls = api.create_host_config(
        network_mode="none",
        ipc_mode="none",
        read_only=True,
        cap_drop=["ALL"],
        cap_add=["SETUID", "SETGID", "KILL"],
        security_opt=["no-new-privileges:true", f"seccomp={plan.profile}"],
        mem_limit=memory_bytes,
        memswap_limit=memory_bytes,
        pids_limit=room.total_processes,
        ulimits=[Ulimit(name="core", soft=0, hard=0)],
        nano_cpus=min(_CPUS, plan.n_cores) * 10**9,
        tmpfs=folders,
        log_config=LogConfig(type="none"),
        init=False,
        auto_remove=True,
        runtime=plan.runtime,
    )
    created = api.create_container(
        plan.image,
        command=[str(plan.level)],
        user="0:0",
        stdin_open=True,
        hostname="sandbox",
        stop_signal="SIGKILL",
        labels={CONTAINER_LABEL: ""},
        use_config_proxy=False,
        host_config=walls,
    )
    return str(created["Id"])


def remove(api: APIClient, container: str) -> None:
    """End a container and remove it; one that removes itself already is waited for."""
    try:
        api.remove_container(container, force=True)
    except APIError as error:
        if error.status_code == 409:
            with contextlib.suppress(APIError):
                api.wait(container, condition="removed")
        elif error.status_code != 404:
            raise


def brief(error: BaseException) -> str:
    """Return the cause that the SDK wraps in so many words."""
    cause: BaseException | None = error
    found = ""
    while cause is not None:
        found = getattr(cause, "strerror", None) or getattr(cause, "explanation", None) or found
        cause = cause.__cause__ or cause.__context__
    lines = (found or str(error)).strip().splitlines() or [type(error).__name__]
    return lines[-1][:300]
