"""Open a backend by name, or refuse in one sentence."""

from __future__ import annotations

from typing import Literal

from trillium_sandbox.base import Backend
from trillium_sandbox.embedded import EmbeddedBackend
from trillium_sandbox.errors import RequestError, SandboxError
from trillium_sandbox.levels import DEFAULT_LEVEL, LEVELS

BackendName = Literal["embedded"]


def open_backend(
    name: BackendName = "embedded",
    *,
    min_level: int = DEFAULT_LEVEL,
    n_workers: int | None = None,
    allow_unsafe: bool = False,
) -> Backend:
    """Return a running backend at the highest level it can hold, at least `min_level`.

    Level 0 takes `allow_unsafe` as well. Raises SandboxError when `min_level` does not hold here,
    with what the kernel refused, RequestError when it is no level.
    """
    if name != "embedded":
        raise SandboxError(f"sandbox: unknown backend {name!r} (embedded)")
    if not 0 <= min_level < len(LEVELS):
        raise RequestError(
            f"sandbox: min_level = {min_level} is no level (0 to {len(LEVELS) - 1}); "
            f"ask for min_level={DEFAULT_LEVEL}"
        )
    if min_level == 0 and not allow_unsafe:
        raise SandboxError(
            "sandbox: level 0 stops nothing hostile (programs reach files and network); "
            "ask for min_level=1 or more, or add allow_unsafe=True"
        )
    refusals = []
    for level in range(2, min_level - 1, -1):
        try:
            return EmbeddedBackend(level, n_workers)
        except SandboxError as error:
            refusals.append(str(error))
    found = "; ".join(refusals) or f"the embedded backend reaches level 2, not {min_level}"
    raise SandboxError(
        f"sandbox: level {min_level} is needed and does not hold here ({found}); "
        "allow user namespaces, run as root, or lower min_level knowingly"
    )
