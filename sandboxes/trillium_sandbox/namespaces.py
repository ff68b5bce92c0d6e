"""Level 2: a world of its own for one zygote and the programs it forks.

Own users, processes, network (not even a loopback), IPC and host name, and an own root: an empty
read-only tmpfs that shows the interpreter, the shared libraries and three devices, nothing else;
no /proc, no /etc, no home. Programs work in /box, a tmpfs whose size is the disk limit; shared
memory (the semaphores of a pool of threads) lies there as well, and is emptied with it.
"""

from __future__ import annotations

import os
import sys

from trillium_sandbox import linux

BOX = "/box"
SHARED_MEMORY = "/dev/shm"
N_IDS = 16
_FIRST_RANGE, _N_RANGES = 0x6A000000, 1 << 24
CANDIDATE_ID, JUDGE_ID = 1, 2

_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
_INODES = 4096
_BOX_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
_SPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
)


def library_paths() -> tuple[str, ...]:
    """Return what a Python program must be able to read: interpreter, libraries, devices."""
    prefixes = {os.path.realpath(p) for p in (sys.base_prefix, sys.base_exec_prefix)}
    system = [p for p in ("/usr", "/lib", "/lib64", "/nix/store") if os.path.isdir(p)]
    extra = sorted(p for p in prefixes if not any(_is_under(p, root) for root in system))
    return (*system, *extra)


def new_users() -> int:
    """Return the first of N_IDS user ids that nobody else is likely to have, far from accounts.

    One zygote's only: the kernel counts processes by user, over all zygotes of a machine.
    """
    return _FIRST_RANGE + N_IDS * (int.from_bytes(os.urandom(3), "little") % _N_RANGES)


def are_mapped(first_id: int, name: str = "uid_map") -> bool:
    """Return whether the user ids from `first_id` on exist here."""
    with open(f"/proc/self/{name}") as lines:
        ranges = [[int(word) for word in line.split()] for line in lines]
    return any(
        first <= first_id and first + count >= first_id + N_IDS for first, _, count in ranges
    )


def enter(disk_bytes: int) -> int | None:
    """Enter the namespaces and fork; return in the child, which is process 1 of its own space.

    Returns the id of the first user that children may become, None where they must keep ours.
    The parent stays until the child ends and never returns. Raises OSError, naming the call, where
    this machine does not allow it.
    """
    if os.geteuid() == 0:
        first_id = _enter_as_root()
    else:
        _enter_as_user(os.geteuid(), os.getegid())
        first_id = None
    mount_box(disk_bytes)
    _fork_first_process()
    return first_id


def mount_box(disk_bytes: int) -> None:
    """Mount an empty work folder that holds at most `disk_bytes`."""
    linux.mount("box", BOX, "tmpfs", _BOX_FLAGS, _box_options(disk_bytes))


def resize_box(disk_bytes: int) -> None:
    """Change how much the work folder holds."""
    linux.mount("box", BOX, None, _BOX_FLAGS | linux.MS_REMOUNT, _box_options(disk_bytes))


def replace_box(disk_bytes: int) -> None:
    """Swap the work folder for an empty one, whatever a program built inside it."""
    linux.umount(BOX, linux.MNT_DETACH)
    mount_box(disk_bytes)


def _box_options(disk_bytes: int) -> str:
    return f"size={disk_bytes},nr_inodes={_INODES},mode=0777"


def _is_under(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _build_root() -> None:
    paths = library_paths()
    linux.mount("none", "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("root", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=0755")
    os.mkdir("/tmp/old", 0o755)
    linux.pivot_root("/tmp", "/tmp/old")
    os.chdir("/")
    os.mkdir(BOX, 0o755)
    for path in paths:
        if os.path.islink("/old" + path):
            os.symlink(os.readlink("/old" + path), path)
            continue
        os.makedirs(path, 0o755, exist_ok=True)
        linux.mount("/old" + path, path, None, linux.MS_BIND | linux.MS_REC)
        linux.seal_mount(path)
    os.mkdir("/dev", 0o755)
    for device in _DEVICES:
        os.close(os.open(device, os.O_CREAT | os.O_WRONLY, 0o644))
        linux.mount("/old" + device, device, None, linux.MS_BIND)
    os.symlink(BOX, SHARED_MEMORY)
    linux.umount("/old", linux.MNT_DETACH)
    os.rmdir("/old")
    flags = linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("root", "/", None, flags)


def _enter_as_user(user: int, group: int) -> None:
    linux.unshare(linux.CLONE_NEWUSER | _SPACES)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    _build_root()


def _enter_as_root() -> int:
    """Build the root, then enter new users where a range of them can be mapped.

    The root is built first: it then belongs to the outer users, and programs could not change it
    even with every capability of their own namespace. The range is mapped by a helper that stays
    outside, because that takes the right to set users there.
    """
    outside = new_users()
    can_map = all(are_mapped(outside, name) for name in ("uid_map", "gid_map"))
    entered_read, entered_write = os.pipe()
    mapped_read, mapped_write = os.pipe()
    launcher = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(entered_write)
        _map_users(launcher, outside, entered_read, mapped_write)
    os.close(mapped_write)
    linux.unshare(linux.CLONE_NEWNS)
    _build_root()
    own_users = can_map and _unshares_users()
    if own_users:
        os.write(entered_write, b"y")
        own_users = os.read(mapped_read, 1) == b"y"
        if not own_users:
            raise OSError("uid_map: the user range cannot be mapped here")
    else:
        linux.unshare(_SPACES)
    for descriptor in (entered_read, entered_write, mapped_read):
        os.close(descriptor)
    os.waitpid(helper, 0)
    if not own_users:
        return outside
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.setgroups([])
    return 0


def _unshares_users() -> bool:
    try:
        linux.unshare(linux.CLONE_NEWUSER | _SPACES)
    except OSError:
        return False
    return True


def _map_users(launcher: int, outside: int, entered: int, mapped: int) -> None:
    try:
        if os.read(entered, 1):
            for name in ("uid_map", "gid_map"):
                _write(f"/proc/{launcher}/{name}", f"0 {outside} {N_IDS}")
            os.write(mapped, b"y")
    finally:
        os._exit(0)


def _fork_first_process() -> None:
    child = os.fork()
    if child == 0:
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
        return
    os.closerange(0, 256)
    os.waitpid(child, 0)
    os._exit(0)
