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

from trillium_sandbox import landlock, linux, namespaces
from trillium_sandbox.child import Jail, prepare

# fmt: off
_PRELOADED = (
    "bisect", "collections", "functools", "heapq", "itertools", "math", "operator", "re", "typing",
)
# fmt: on
_FIRST_FREE = 10


def build_jail(level: int, box: str, disk_bytes: int) -> Jail:
    """Enter `level` and return what its children will be locked into."""
    if level >= 1 and not linux.NUMBERS:
        raise OSError(f"no system call table for {linux.MACHINE} (x86_64 or aarch64)")
    for name in _PRELOADED:
        __import__(name)
    # Programs expect what the site module adds; it is not loaded for its size.
    builtins.exit = builtins.quit = _sitebuiltins.Quitter("exit", "Ctrl-D")
    _lead_oom_killer()
    memory = _address_space()
    first_id = None
    if level >= 2:
        first_id = namespaces.enter(disk_bytes)
        box = namespaces.BOX
    elif level == 1 and os.geteuid() == 0:
        first_id = namespaces.OUTSIDE_IDS
        os.setgroups([])
        _check_readable(first_id)
        os.chmod(box, 0o777)
    os.environ.update(HOME=box, TMPDIR=box)
    os.chdir(box)
    jail = Jail(level, box, first_id, disk_bytes)
    jail.base_memory = memory
    prepare(jail)
    if level == 1 and landlock.version() == 0:
        raise OSError("Landlock is missing (Linux 5.13 or newer, with it enabled)")
    if level >= 1 and landlock.version():
        jail.ruleset = rules(jail)
    return jail


def rules(jail: Jail) -> int:
    """Return the Landlock rules for the jail's work folder as it is mounted now."""
    readable = (*namespaces.library_paths(), "/dev/urandom", "/dev/zero")
    return landlock.ruleset(readable, (jail.box, "/dev/null"))


def clear_low_descriptors(*descriptors: int) -> list[int]:
    """Move descriptors out of the way of the numbers that children hand to programs."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD, _FIRST_FREE) for number in descriptors]
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(_FIRST_FREE):
        if number != null:
            os.dup2(null, number)
    return moved


def empty_folder(folder: str) -> None:
    """Empty a folder without recursion and without following links, whatever its modes.

    Folders are dissolved from the top: their entries move up, so no path ever grows long.
    """
    number = 0
    while True:
        with os.scandir(folder) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            for name in os.listdir(entry.path):
                os.rename(f"{entry.path}/{name}", f"{folder}/.{number}")
                number += 1
            os.rmdir(entry.path)


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
