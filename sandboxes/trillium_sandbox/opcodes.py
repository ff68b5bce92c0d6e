"""Count the bytecode instructions that a program executes, in its own process.

The same program on the same input has the same count every time, however busy the machine is; but
the count is kept where the program runs, and a program that wants to can falsify it. It is a
tie-break beside CPU time, which is measured from outside (meter.py). Work inside C functions (a
sort, a regular expression) counts as the one instruction that called it; threads other than the
main one are counted from Python 3.12 on. Counting takes 20 to 60 times as long as running.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

    from _typeshed import TraceFunction

COUNT = struct.Struct("<Q")
"""What is written to the file of a counted program; zero when it ended before it could say."""

_OWN = __file__.removesuffix("opcodes.py")
_TOOL = 2  # sys.monitoring.PROFILER_ID


class OpcodeCount:
    """The number of instructions executed in everything but this package."""

    __slots__ = ("descriptor", "n_opcodes")

    def __init__(self, descriptor: int) -> None:
        """Count from the next call on; `descriptor` is where to leave the number."""
        self.descriptor = descriptor
        self.n_opcodes = 0
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(_TOOL, "trillium")
            monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, self._instruction)
            monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
        else:
            sys.settrace(self._enter)

    def save(self) -> None:
        """Leave the count so far; one saved later replaces it."""
        with contextlib.suppress(OSError):  # the program may have closed the descriptor
            os.pwrite(self.descriptor, COUNT.pack(self.n_opcodes), 0)

    def _enter(self, frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        if frame.f_code.co_filename.startswith(_OWN):
            return None
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, argument: object) -> None:
        # Returning nothing leaves this the frame's trace function.
        if event == "opcode":
            self.n_opcodes += 1

    def _instruction(self, code: CodeType, offset: int) -> object:
        if not code.co_filename.startswith(_OWN):
            self.n_opcodes += 1
        elif sys.version_info >= (3, 12):
            return sys.monitoring.DISABLE
        return None
