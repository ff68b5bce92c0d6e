"""Open a backend by name, or refuse in one sentence."""

from __future__ import annotations

from typing import Literal

from trillium_sandbox.base import Backend
from trillium_sandbox.embedded import EmbeddedBackend
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import DEFAULT_LEVEL, LEVELS

LocalBackend = Literal["embedded", "docker"]
BackendName = Literal[LocalBackend, "http"]


def open_backend(
    name: BackendName = "embedded",
    *,
    min_level: int = DEFAULT_LEVEL,
    n_workers: int | None = None,
    allow_unsafe: bool = False,
    runtime: str | None = None,
    url: str | None = None,
    token: str | None = None,
) -> Backend:
    """Return a running backend at the highest level it can hold, at least `min_level`.

    `runtime` is for the backend `docker`: the engine's own without one (level 3), that of gVisor
    (runsc, level 4) or of Kata (level 5). `url` and `token` are of the service that `http` asks.
    Level 0 takes `allow_unsafe` as well. Raises SandboxError when `min_level` does not hold here,
    with what the kernel refused, RequestError when it is no level.
    """
    if name == "http":
        if url is None:
            raise RequestError("sandbox: the backend http needs a url; give that of a service")
        from trillium_sandbox.client import HttpBackend

        return HttpBackend(url, token=token, min_level=min_level)
    if name not in ("embedded", "docker"):
        raise SandboxError(f"sandbox: unknown backend {name!r} (embedded, docker, http)")
    if runtime is not None and name != "docker":
        raise RequestError(f"sandbox: runtime={runtime!r} is for the backend docker, not {name}")
    if not 0 <= min_level < len(LEVELS):
        raise RequestError(
            f"sandbox: min_level = {min_level} is no level (0 to {len(LEVELS) - 1}); "
            f"ask for min_level={DEFAULT_LEVEL}"
        )
    if min_level == 0 and not allow_unsafe:
        raise SandboxError(
            "sandbox: level 0 stops nothing hostile (programs reach files and network); "
            "ask for min_level=1 or more, or allow it knowingly (--allow-unsafe, allow_unsafe=True)"
        )
    if name == "docker":
        return _open_docker(min_level, n_workers, runtime)
    refusals = []
    for level in range(2, min_level - 1, -1):
        try:
            return EmbeddedBackend(level, n_workers)
        except SandboxError as error:
            refusals.append(str(error))
    if not refusals:
        raise SandboxError(
            f"sandbox: level {min_level} is needed and the backend embedded reaches 2; "
            "take the backend docker, or lower min_level knowingly"
        )
    raise SandboxError(
        f"sandbox: level {min_level} is needed and does not hold here ({'; '.join(refusals)}); "
        "allow user namespaces, run as root, or lower min_level knowingly"
    )


def _open_docker(min_level: int, n_workers: int | None, runtime: str | None) -> Backend:
    try:
        from trillium_sandbox.docker.backend import DockerBackend
        from trillium_sandbox.docker.daemon import level_of
    except ModuleNotFoundError as error:
        raise SandboxError(
            f'sandbox: the backend docker needs {error.name}; pip install "trillium[docker]"'
        ) from error
    level = level_of(runtime)
    if level < min_level:
        raise SandboxError(
            f"sandbox: level {min_level} is needed, and the backend docker reaches {level} with "
            f"the runtime {runtime or 'of the engine'}; ask for runtime='runsc' (4) or 'kata' (5)"
        )
    return DockerBackend(n_workers, runtime)
