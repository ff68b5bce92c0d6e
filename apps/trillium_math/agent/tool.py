"""The Python tool: all calls of a turn run together, and equal prefixes of cells run once.

State lives in no process: every call runs the cells before it again, in a fresh sandbox, so that a
trajectory can branch or be resumed anywhere. Results are cached by the hash of all cells. The same
cells give the same text: addresses in memory are left out of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trillium_sandbox import Backend, Reply, Request

from trillium_math.agent.cells import failure_mark, hash_cells, make_program
from trillium_math.agent.config import ToolConfig

# Where an object lies in memory differs from process to process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

ToolStatus = Literal["ok", "error", "timeout", "memory", "flood", "killed", "lost"]


@dataclass(frozen=True)
class ToolResult:
    """Hold what a call gave back. `lost` is a failure of the sandbox, not of the code."""

    output: str
    status: ToolStatus


class PythonTool:
    """Run code cells of many trajectories in the sandbox."""

    def __init__(self, backend: Backend, config: ToolConfig) -> None:
        """Use an open backend, whoever closes it."""
        self._backend = backend
        self._config = config
        self._cache: dict[str, ToolResult] = {}
        self.n_runs = 0

    def run(self, calls: Sequence[Sequence[str]]) -> list[ToolResult]:
        """Return one result per call; a call is all cells of its trajectory, in order."""
        keys = [hash_cells(cells) for cells in calls]
        missing = {
            key: cells for key, cells in zip(keys, calls, strict=True) if key not in self._cache
        }
        requests = [
            Request(
                id=key,
                mode="script",
                source=make_program(cells).encode("utf-8", "replace"),
                limits=self._config.limits,
            )
            for key, cells in missing.items()
        ]
        results = dict(self._cache)
        for request, reply in zip(requests, self._backend.run(requests), strict=True):
            result = self._read(reply, failure_mark(missing[request.id]))
            results[request.id] = result
            # A failure of the sandbox may pass; everything else is a fact about the code.
            if result.status != "lost":
                self._cache[request.id] = result
        self.n_runs += len(requests)
        return [results[key] for key in keys]

    def _read(self, reply: Reply, mark: str) -> ToolResult:
        printed = _ADDRESS.sub("", reply.stdout.decode("utf-8", "replace")).strip("\n")
        if reply.sandbox_failure:
            return ToolResult("The tool is not available.", "lost")
        status: ToolStatus = "ok"
        said = ""
        if reply.status == "timeout":
            status, said = "timeout", f"TimeoutError: no result after {self._config.wall_s:g} s"
        elif reply.status == "memory":
            status, said = "memory", "MemoryError: too much memory"
        elif reply.status == "output_limit" or reply.truncated:
            status = "flood"
        elif reply.status != "ok":
            status, said = "killed", "RuntimeError: the program was stopped"
        elif mark.encode() in reply.stderr:
            status = "error"
        text = "\n".join(part for part in (printed, said) if part)
        return ToolResult(cut_middle(text or "(no output)", self._config.max_output_chars), status)


def cut_middle(text: str, max_chars: int) -> str:
    """Return the text, or its two ends with a note about what was left out between them."""
    if len(text) <= max_chars:
        return text
    kept, room = 0, max_chars
    # The note takes room from what it counts.
    while kept != room:
        kept = room
        note = f"\n... {len(text) - kept} characters left out ...\n"
        room = max(2, max_chars - len(note))
    return text[: kept - kept // 2] + note + text[len(text) - kept // 2 :]
