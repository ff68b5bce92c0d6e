"""The work folder that programs take turns in: whether it is as it was, and how it becomes so.

It is looked at and emptied while nothing that a program could change it with is alive. Even so it
is emptied through descriptors and never by following a link: the zygote may be root.
"""

# The zygote stays small: pathlib is not among what it loads.
# ruff: noqa: PTH101, PTH116, PTH208
from __future__ import annotations

import contextlib
import errno
import os

from trillium_sandbox import landlock, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trillium_sandbox.child import Jail

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Box:
    """The work folder of one zygote."""

    def __init__(self, jail: Jail) -> None:
        """Take the jail's folder, which is empty, as what it shall look like."""
        self._jail = jail
        first_id = jail.first_id or 0
        self._users = first_id + namespaces.CANDIDATE_ID, first_id + namespaces.JUDGE_ID
        self._empty = self._look()

    def is_empty(self) -> bool:
        """Return whether the folder is as it was before any program."""
        return self._look() == self._empty

    def empty(self) -> None:
        """Empty the folder. Raises OSError when something stays."""
        jail = self._jail
        if jail.level == 2:
            namespaces.replace_box(jail.disk_bytes)
            self.enter()
        else:
            empty_folder(jail.box, self._users if jail.level >= 3 else ())
        self._empty = self._look()

    def enter(self) -> None:
        """Work in the folder that is mounted now, where it is not the one from before."""
        jail = self._jail
        if os.stat(jail.box).st_dev == os.stat(".").st_dev:
            return
        os.chdir(jail.box)
        if jail.ruleset is not None:
            os.close(jail.ruleset)
            jail.ruleset = rules(jail)

    def _look(self) -> tuple[int, ...]:
        """Return what differs when there is anything in the folder, or its mode has changed.

        The size of a tmpfs folder counts its entries; clocks may be too coarse to tell.
        """
        status = os.stat(self._jail.box)
        if self._jail.level < 2:
            return len(os.listdir(self._jail.box)), status.st_mode
        return status.st_size, status.st_nlink, status.st_mode


def rules(jail: Jail) -> int:
    """Return the Landlock rules for the jail's work folder as it is mounted now."""
    readable = (*namespaces.library_paths(), "/dev/urandom", "/dev/zero")
    return landlock.ruleset(readable, (jail.box, "/dev/null"))


def empty_folder(path: str, users: tuple[int, ...] = ()) -> None:
    """Empty a folder without recursion and without following links, whatever its modes.

    With `users`, as each of them in turn, for a process that may become them but has no other
    power over their files. Raises OSError when something stays.
    """
    folder = os.open(path, _FOLDER)
    try:
        n_steps = 1
        while n_steps:
            n_steps = 0
            for user in users:
                os.seteuid(user)
                try:
                    n_steps += _dissolve(folder)
                finally:
                    os.seteuid(0)
            if not users:
                n_steps = _dissolve(folder)
        if os.listdir(folder):
            raise OSError("the work folder cannot be emptied")
    finally:
        os.close(folder)


def _dissolve(folder: int) -> int:
    """Remove files and take one layer off every folder; return the number of changes.

    What is inside moves up, so no path ever grows long, whatever was built here.
    """
    n_steps = 0
    prefix = f".{os.urandom(8).hex()}-"
    for name in os.listdir(folder):
        with contextlib.suppress(PermissionError):  # another user's
            inside = _open_up(name, folder)
            if inside is None:
                os.unlink(name, dir_fd=folder)
                n_steps += 1
                continue
            try:
                n_steps += _lift(inside, folder, f"{prefix}{n_steps}")
            finally:
                os.close(inside)
        with contextlib.suppress(OSError):  # not empty yet
            os.rmdir(name, dir_fd=folder)
            n_steps += 1
    return n_steps


def _lift(inside: int, folder: int, prefix: str) -> int:
    """Remove the files of a folder and move its folders up; return the number of changes."""
    n_steps = 0
    for name in os.listdir(inside):
        with contextlib.suppress(PermissionError):
            below = _open_up(name, inside)  # a folder that may not be written keeps its parent
            if below is None:
                os.unlink(name, dir_fd=inside)
            else:
                os.close(below)
                os.rename(name, f"{prefix}-{n_steps}", src_dir_fd=inside, dst_dir_fd=folder)
            n_steps += 1
    return n_steps


def _open_up(name: str, folder: int) -> int | None:
    """Return a descriptor of a folder that may be changed from now on, None for anything else.

    Raises PermissionError where it is another user's.
    """
    try:
        place = os.open(name, os.O_PATH | _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        try:
            inside = os.open(".", _FOLDER, dir_fd=place)
        except PermissionError:
            # A descriptor of its place only; Python 3.11 has no other way to change such a mode.
            os.chmod(f"/proc/self/fd/{place}", 0o777)
            inside = os.open(".", _FOLDER, dir_fd=place)
    finally:
        os.close(place)
    with contextlib.suppress(PermissionError):
        os.fchmod(inside, 0o777)
    return inside
