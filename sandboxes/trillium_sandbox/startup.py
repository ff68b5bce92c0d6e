"""From a fresh interpreter to a zygote at its level: everything that is done once, before any fork.

Raises OSError, with the kernel call that was refused, where a level does not hold.
"""

from __future__ import annotations

import _sitebuiltins
import builtins
import fcntl
import os
import resource
import sys

from trillium_sandbox import landlock, linux, namespaces, walls
from trillium_sandbox.box import rules
from trillium_sandbox.child import Jail, prepare
from trillium_sandbox.crowd import Crowd

# fmt: off
_PRELOADED = (
    "bisect", "collections", "functools", "heapq", "itertools", "math", "operator", "re", "typing",
)
# fmt: on
_FIRST_FREE = 10
_FEWER_USERS = 0x6A00


def build_jail(level: int, box: str, disk_bytes: int) -> Jail:
    """Enter `level` and return what its children will be locked into."""
    if level >= 1 and not linux.NUMBERS:
        raise OSError(f"no system call table for {linux.MACHINE} (x86_64 or aarch64)")
    for name in _PRELOADED:
        __import__(name)
    # Programs expect what the site module adds; it is not loaded for its size.
    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    builtins.help = _sitebuiltins._Helper()
    builtins.copyright = _sitebuiltins._Printer("copyright", sys.copyright)
    _lead_oom_killer()
    memory = _address_space()
    box, first_id = _enter(level, box, disk_bytes)
    os.environ.update(HOME=box, TMPDIR=box)
    os.chdir(box)
    jail = Jail(level, box, first_id, disk_bytes)
    jail.base_memory = memory
    if level < 2 and first_id is None and os.geteuid() != 0:  # no limit of threads binds root
        jail.crowd = Crowd()
    prepare(jail)
    if level == 1 and landlock.version() == 0:
        raise OSError("Landlock is missing (Linux 5.13 or newer, with it enabled)")
    if level >= 1 and landlock.version():
        jail.ruleset = rules(jail)
    return jail


def _enter(level: int, box: str, disk_bytes: int) -> tuple[str, int | None]:
    """Go behind the walls of `level`; return the work folder and the first user of our own."""
    if level == 2:
        return namespaces.BOX, namespaces.enter(disk_bytes)
    if level == 0 or os.geteuid() != 0:
        return box, None
    first_id = namespaces.new_users()
    if not namespaces.are_mapped(first_id):  # a container with users of its own has fewer
        first_id = _FEWER_USERS
    os.setgroups([])
    if level == 1:
        os.chmod(box, 0o777)
    else:
        box = namespaces.BOX
        missing = walls.missing(level, first_id)
        if missing:
            raise OSError(f"no hardened container: {'; '.join(missing)}")
    _check_readable(first_id)
    return box, first_id


def clear_low_descriptors(*descriptors: int) -> list[int]:
    """Move descriptors out of the way of the numbers that children hand to programs."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, _FIRST_FREE) for number in descriptors]
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(_FIRST_FREE):
        if number != null:
            os.dup2(null, number)
    return moved


def _check_readable(user: int) -> None:
    """Raise OSError where another user could not even import from the standard library."""
    child = os.fork()
    if child == 0:
        os.setresuid(user, user, user)
        os._exit(0 if os.access(os.__file__, os.R_OK) else 1)
    if os.waitpid(child, 0)[1]:
        raise OSError(f"the interpreter in {sys.base_prefix} is not readable by other users")


def _address_space() -> int:
    with open("/proc/self/statm") as numbers:
        return int(numbers.read().split()[0]) * resource.getpagesize()


def _lead_oom_killer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("1000")
    except OSError:
        return  # a convenience: the kernel then chooses whom to kill by size alone
