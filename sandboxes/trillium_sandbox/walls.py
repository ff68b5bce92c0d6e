"""The walls of a container, proved from the inside: a level 3 that is claimed is not a level 3.

Each proof looks at what the kernel says of this very process, or tries what must not work. Without
the walls that only whoever starts the container can build, nothing here is built in their place.
"""

# The zygote stays small: pathlib is not among what it loads.
# ruff: noqa: PTH112, PTH115, PTH123
from __future__ import annotations

import errno
import os

from trillium_sandbox.namespaces import BOX

_ALLOWED_CAPABILITIES = 1 << 5 | 1 << 6 | 1 << 7  # KILL, SETGID, SETUID
_FIRST_PID_SPACE = "pid:[4026531836]"
_UNLIMITED = 1 << 60
_IS_UP = 1
_BOX_OPTIONS = {"nosuid", "nodev", "noexec"}
_LIMITS = {
    "memory": ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    "processes": ("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
}


def missing(level: int, user: int) -> list[str]:
    """Return the walls that do not stand around this process and around `user`'s, in words.

    A kernel in user space (level 4) shows neither privileges nor limits, and neither it nor a
    virtual machine (level 5) takes the profile, which would stand before the machine's own kernel.
    """
    found = [
        (_root_is_writable(), "the root is writable (--read-only)"),
        (not _has_work_folder(level), f"{BOX} is no tmpfs with nosuid, nodev, noexec (--tmpfs)"),
        (_number("CapBnd", 16) & ~_ALLOWED_CAPABILITIES, "more capabilities (--cap-drop ALL)"),
        (
            level != 4 and not _number("NoNewPrivs", 10),
            "new privileges (--security-opt no-new-privileges)",
        ),
        (
            level == 3 and _number("Seccomp", 10) != 2,
            "no seccomp profile (--security-opt seccomp=)",
        ),
        (not _has_own_processes(), "no process space of its own"),
        (any(map(_is_up, _interfaces())), "a network (--network none)"),
        (level != 4 and not _is_limited("memory"), "no memory limit (--memory)"),
        (level != 4 and not _is_limited("processes"), "no limit on processes (--pids-limit)"),
    ]
    shared = _writable_places(user)
    found.append((bool(shared), f"programs can write to {', '.join(shared)} (--ipc none)"))
    return [words for is_missing, words in found if is_missing]


def _number(field: str, base: int) -> int:
    with open("/proc/self/status") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == field:
                return int(value, base)
    return -1 if field == "CapBnd" else 0


def _root_is_writable() -> bool:
    try:
        os.close(os.open("/.wall", os.O_CREAT | os.O_WRONLY))
    except OSError as error:
        return error.errno != errno.EROFS
    return True


def _mounts() -> list[tuple[str, set[str], str]]:
    """Return each mount's place, options and file system."""
    mounts = []
    with open("/proc/self/mountinfo") as lines:
        for line in lines:
            ours, _, theirs = line.partition(" - ")
            words = ours.split()
            mounts.append((words[4], set(words[5].split(",")), theirs.split()[0]))
    return mounts


def _has_work_folder(level: int) -> bool:
    shown = {"noexec"} if level == 4 else _BOX_OPTIONS
    return any(
        place == BOX and kind == "tmpfs" and options >= shown for place, options, kind in _mounts()
    )


def _has_own_processes() -> bool:
    # The supervisor of a container is its first process, and whoever asks is its child.
    return os.readlink("/proc/self/ns/pid") != _FIRST_PID_SPACE and os.getppid() == 1


def _interfaces() -> list[str]:
    with open("/proc/self/net/dev") as lines:
        names = [line.partition(":")[0].strip() for line in lines if ":" in line]
    return [name for name in names if name != "lo"]


def _is_up(interface: str) -> bool:
    # Some kernels put tunnels that are down into every new network.
    try:
        with open(f"/sys/class/net/{interface}/flags") as flags:
            return bool(int(flags.read(), 16) & _IS_UP)
    except OSError:
        return True


def _is_limited(kind: str) -> bool:
    for path in _LIMITS[kind]:
        try:
            with open(path) as limit:
                words = limit.read().strip()
        except OSError:
            continue
        return words != "max" and int(words) < _UNLIMITED
    return False


def _writable_places(user: int) -> list[str]:
    """Return where `user` could leave something that another program finds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            # Making a message queue takes memory that children may not lock: their limit is 0.
            places = {p for p, _, kind in _mounts() if kind not in ("mqueue", "proc")}
            found = sorted(p for p in places if p != BOX and _accepts_files(p))
            os.write(write, "\n".join(found).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as lines:
        found = lines.read().split()
    if os.waitpid(child, 0)[1]:
        raise OSError(f"no process can become user {user} here")
    return found


def _accepts_files(place: str) -> bool:
    return os.path.isdir(place) and os.access(place, os.W_OK)
