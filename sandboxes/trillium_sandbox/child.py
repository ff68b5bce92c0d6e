"""Inside the forked child: give up every right, in order, then run the program.

Everything up to `lock_down` is trusted code; everything after it is not, whatever its author.

Each child compiles its own program. A compiler that all programs share would save 15 %, and one
program that takes it over could change the code of the others; a compiler for each program alone
costs 75 % more (tests/benchmarks/sandbox_compile.py, 2 cores, Python 3.11).
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import resource
import sys

from trillium_sandbox import landlock, linux, seccomp
from trillium_sandbox.opcodes import COUNT, OpcodeCount
from trillium_sandbox.syscalls import MODES_AND_TIMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

    from trillium_sandbox.crowd import Crowd

    Numbers = tuple[int, int, int, int, int]
    """CPU seconds, memory, disk, threads, output: a request's limits as the kernel takes them."""

FIRST_OPEN = 5
"""Descriptors from here on are closed before any program runs."""

_SEALS = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_FIXED_LIMITS = (
    (resource.RLIMIT_CORE, 0),
    (resource.RLIMIT_NOFILE, 64),
    (resource.RLIMIT_MEMLOCK, 0),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_SIGPENDING, 64),
    (resource.RLIMIT_NICE, 0),
    (resource.RLIMIT_RTPRIO, 0),
)


class Jail:
    """What every child of one zygote is locked into; built once, before the first fork."""

    __slots__ = (
        "base_memory",
        "box",
        "crowd",
        "disk_bytes",
        "filter",
        "first_id",
        "forking_filter",
        "level",
        "output_bytes",
        "ruleset",
    )

    def __init__(self, level: int, box: str, first_id: int | None, disk_bytes: int) -> None:
        """Assemble the filter; the Landlock rules come later, for the work folder as mounted."""
        self.level = level
        self.box = box
        self.first_id = first_id
        self.disk_bytes = disk_bytes
        self.output_bytes = 65536
        # At level 2 the only files of the caller's user in sight are read-only.
        withheld = MODES_AND_TIMES if level == 1 and first_id is None else frozenset[str]()
        self.filter = seccomp.Filter(withheld) if level >= 1 else None
        self.forking_filter = seccomp.Filter(withheld, may_fork=True) if level >= 1 else None
        self.ruleset: int | None = None
        self.base_memory = 0
        self.crowd: Crowd | None = None


def prepare(jail: Jail) -> None:
    """Set in the zygote what every child inherits: fixed limits, no privileges by executing."""
    for kind, value in _FIXED_LIMITS:
        ceiling = resource.getrlimit(kind)[1]
        limit = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
        resource.setrlimit(kind, (limit, limit))
    if jail.level >= 1:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)  # of a judge's forks (bench.py)
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        linux.prctl(linux.PR_SET_DUMPABLE, 0)


def lock_down(jail: Jail, numbers: Numbers, user: int, *, may_fork: bool = False) -> None:
    """Turn this process into a prisoner; there is no way back from here.

    Standard streams and descriptors 3 and 4 must already be what the program may hold. One that
    `may_fork` is a judge, whose forks call `lock_fork` before they run anything.
    """
    if jail.level == 0 and os.getpgrp() != os.getpid():
        os.setsid()  # so that the zygote can end what it forked; from level 1 on, judges alone can
    _set_limits(jail, numbers)
    if jail.first_id is not None:
        identity = jail.first_id + user
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    elif jail.level >= 1:
        linux.drop_capabilities()
    if jail.level in (1, 3, 4, 5):
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
        if os.getppid() == 1:
            os._exit(70)  # the zygote has ended before that call
    if jail.ruleset is not None:
        landlock.restrict(jail.ruleset)
    os.closerange(FIRST_OPEN, 1 << 16)
    chosen = jail.forking_filter if may_fork else jail.filter
    if chosen is not None:
        chosen.install(os.getpid())
    gc.enable()


def lock_fork(jail: Jail, judge: int) -> None:
    """Lock a fork of process `judge` down like any program, and end it with the judge."""
    if jail.level in (1, 3, 4, 5):
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
        if os.getppid() != judge:
            os._exit(70)  # it has ended before that call
    if jail.filter is not None:
        jail.filter.install(os.getpid())


def new_output(output_bytes: int) -> int:
    """Return a file for a program's output, a little larger than the limit and not a byte more.

    Its size is sealed: the kernel itself cuts a flood there.
    """
    output = os.memfd_create("output", os.MFD_ALLOW_SEALING)
    os.ftruncate(output, _pages(output_bytes))
    fcntl.fcntl(output, fcntl.F_ADD_SEALS, _SEALS)
    return output


def new_tally() -> int:
    """Return a file for the opcode count of one program."""
    tally = os.memfd_create("tally", os.MFD_ALLOW_SEALING)
    os.ftruncate(tally, COUNT.size)
    fcntl.fcntl(tally, fcntl.F_ADD_SEALS, _SEALS)
    return tally


def new_module(name: str) -> ModuleType:
    """Return an empty module, registered, for a program to be executed in."""
    module = type(sys)(name)
    module.__dict__["__builtins__"] = __builtins__
    sys.modules[name] = module
    return module


def run_script(source: bytes, tally: int | None) -> int:
    """Run a program to its end as `__main__` and return its exit code.

    With `tally`, its opcodes are counted and their number is left in that file.
    """
    counted = None
    try:
        code = compile(source, "program.py", "exec", dont_inherit=True)
        names = new_module("__main__").__dict__
        names["__file__"] = "program.py"
        if tally is not None:
            counted = OpcodeCount(tally)
        exec(code, names)
        status = 0
    except BaseException as error:
        status = report(error)
    status = finish(status)
    if counted is not None:
        counted.save()
    return status


def report(error: BaseException) -> int:
    """Print an uncaught exception as Python would and return the exit code it means."""
    if isinstance(error, SystemExit):
        code = error.code
        if code is None:
            return 0
        if isinstance(code, int):
            return code & 0xFF
        print(code, file=sys.stderr)
        return 1
    # The first frame is this file's own.
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return 1


def finish(status: int) -> int:
    """End as an interpreter does (threads, exit functions, buffers); return the exit code."""
    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException:
        # The interpreter's own code for a flush that failed at the end.
        return status or 120
    return status


def _pages(size: int) -> int:
    # Whole pages: the kernel refuses a write that crosses the end, and writes page by page.
    return (size // 4096 + 1) * 4096


def _set_limits(jail: Jail, numbers: Numbers) -> None:
    cpu_s, memory_bytes, disk_bytes, n_processes, output_bytes = numbers
    setrlimit = resource.setrlimit
    memory = jail.base_memory + memory_bytes
    size = max(disk_bytes, _pages(output_bytes))
    setrlimit(resource.RLIMIT_AS, (memory, memory))
    # At the first the program may end by a signal of its own name, at the second it must.
    setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    setrlimit(resource.RLIMIT_FSIZE, (size, size))
    if jail.first_id is not None:
        setrlimit(resource.RLIMIT_NPROC, (n_processes, n_processes))
    elif jail.crowd is not None:
        jail.crowd.admit(n_processes)
    elif jail.level == 2:
        # Users are shared with the zygote and its launcher: their processes count as well.
        setrlimit(resource.RLIMIT_NPROC, (n_processes + 4, n_processes + 4))
