"""The fixed-size parts of what supervisor, zygote, judge and candidate say to one another.

Fixed, because the child that reads a request should touch as few pages as it can: each is a fault.
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct("<I")
"""Before every message between judge and candidate: its size in bytes."""

REQUEST = struct.Struct("<QddQQQQQIIII")
"""Supervisor to child: ticket, wall and CPU seconds; CPU (kernel), memory, disk, thread and output
limits; the number of tests; the sizes of source, standard input and tests, which follow. Tests are
codec bytes of (entry point, tests), none in script and stdio mode."""

BEGIN = struct.Struct("<cddQQI")
"""First child to zygote: P for a program alone, F for a pair; wall and CPU seconds, ticket, disk
limit, number of tests."""

RECORD = struct.Struct("<cdd")
"""Judge to zygote: a letter, the time at which the next test begins (monotonic), a spare number.

s both are locked down, r the candidate is loaded, then one of these for each test:
P pass, p pass that leant on other names of the candidate, f fail, e error, m out of memory,
x the candidate's process ended; or l it could not be loaded; d all tests are done.
"""
