"""Which of the levels 3 to 5 the Docker engine offers: a program is run in a container of each."""

from __future__ import annotations

import contextlib

from trillium_sandbox.docker import daemon
from trillium_sandbox.docker.backend import DockerBackend
from trillium_sandbox.errors import SandboxError
from trillium_sandbox.levels import Probe
from trillium_sandbox.verdicts import Request

_ANSWER_S = 0.6
_RUNTIMES = {3: "", 4: "gVisor's runsc", 5: "kata"}
_PROGRAM = Request("probe", "function", b"def f(): return 6 * 7", ("assert f() == 42",), "f")


def probe() -> list[Probe]:
    """Try every level that is a container's; quick where no engine answers."""
    try:
        with contextlib.closing(daemon.connect(_ANSWER_S)) as api:
            runtimes = sorted(api.info()["Runtimes"])
    except (SandboxError, *daemon.FAILURES) as error:
        return [Probe(level, False, _plain(error)) for level in _RUNTIMES]
    return [_try(level, runtimes) for level in _RUNTIMES]


def _try(level: int, runtimes: list[str]) -> Probe:
    named = [name for name in runtimes if daemon.level_of(name) == level]
    if level > 3 and not named:
        return Probe(level, False, f"the engine has no runtime of this kind ({_RUNTIMES[level]})")
    runtime = named[0] if level > 3 else None
    try:
        with DockerBackend(1, runtime) as backend:
            (reply,) = backend.run([_PROGRAM])
            walls = backend.walls
    except SandboxError as error:
        return Probe(level, False, _plain(error))
    if reply.status != "pass":
        return Probe(level, False, f"a program that must pass did not ({reply.status})")
    return Probe(level, True, walls)


def _plain(error: BaseException) -> str:
    return str(error).removeprefix("docker: ")
