"""The fixed-size parts of what supervisor, zygote, judge and candidate say to one another.

Fixed, because the child that reads a request should touch as few pages as it can: each is a fault.
"""

from __future__ import annotations

import struct

LENGTH = struct.Struct("<I")
"""Before every message between judge and candidate: its size in bytes."""

REQUEST = struct.Struct("<cQddQQQQQIIII?")
"""Supervisor to child: a letter; ticket, wall and CPU seconds; CPU (kernel), memory, disk, thread
and output limits; the number of tests and the first to run; the sizes of two texts, which follow;
whether opcodes shall be counted.

P a program alone: source, standard input. T tests, for a judge: codec bytes of (entry point,
tests), anything where it shall stay for more than one candidate. F a candidate for that judge:
source, entry point. S settings: the disk and output limits hold for what follows; no texts."""

BEGIN = struct.Struct("<cddQQQII?")
"""Child to zygote: the request's letter, wall and CPU seconds, ticket, disk and output limits,
number of tests, first test, whether opcodes are counted."""

ALONE = b"J"
"""Child to zygote, instead, while a judge sits whose tests are not those of the request: end it
first; the same back when that is done. Then comes the record."""

DONE = struct.Struct("<cQddqQcQQQQ")
"""Zygote to supervisor: D, ticket, elapsed and CPU seconds, wait status, peak resident bytes, what
stopped it (w wall_s, c cpu_s, j no judge, h it hung up and stayed, k its judge was killed, -
nothing), the number of opcodes (0 when not counted), the sizes of three outputs: the candidate's
two, the judge's errors. The judge's records follow; outputs of non-zero size come as files."""

RECORD = struct.Struct("<cd")
"""Judge to zygote: a letter, the time at which the next test begins (monotonic, seconds).

s both are locked down, r the candidate is loaded, then one of these for each test:
P pass, f fail, e error, m out of memory.
Instead: x the candidate's process ended, l it could not be loaded.
In between, once: n the verdicts lean from here on (`LEANT`); no test begins then."""

HUNG_UP = b"h"
"""What stopped a candidate that closed its connection and went on: it did not end by itself."""

JUDGE_KILLED = b"k"
"""What stopped a candidate whose judge was killed, by a signal that no process but itself or the
machine can have sent."""

LEANT = b"n"
"""The letter that says that verdicts rest on what the candidate's process says of itself (another
of its names, an object of its own that is compared or asked for an attribute), or on what cannot be
settled from data."""

NO_JUDGE = b"j"
"""What stopped a candidate whose judge was gone: the supervisor sends the tests again."""
