"""The kernel calls that Python 3.11 has no function for, each raising OSError by name."""

from __future__ import annotations

import ctypes
import os

from trillium_sandbox import syscalls

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_CAPABILITY_VERSION_3 = 0x20080522

MACHINE = os.uname().machine
NUMBERS = {"x86_64": syscalls.X86_64, "aarch64": syscalls.AARCH64}.get(MACHINE, {})

_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, number: int, *arguments: int | bytes | ctypes.c_void_p | None) -> int:
    """Make the system call `number`; `name` is for the error."""
    result = _libc.syscall(ctypes.c_long(number), *(_wide(argument) for argument in arguments))
    return _checked(name, result)


def call_plainly(name: str, number: int, first: int, second: int) -> int:
    """Make a system call whose arguments fit into a C int; for children, who pay by the page."""
    return _checked(name, _libc.syscall(number, first, second))


def set_seccomp(header: ctypes.c_void_p) -> None:
    """Put this process under the filter that `header` (struct sock_fprog) points to."""
    _checked("seccomp", _libc.prctl(PR_SET_SECCOMP, 2, header))


def prctl(option: int, *arguments: int | ctypes.c_void_p) -> int:
    """Make a prctl call; missing arguments are zero."""
    values = [_wide(argument) for argument in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    return _checked(f"prctl({option})", _libc.prctl(option, *values))


def unshare(flags: int) -> None:
    """Move this process into new namespaces."""
    _checked("unshare", _libc.unshare(flags))


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """Mount a file system, bind a path, or change a mount."""
    result = _libc.mount(
        source.encode(),
        target.encode(),
        None if kind is None else kind.encode(),
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(f"mount {target}", result)


def seal_mount(target: str) -> None:
    """Make the mount at `target`, and all under it, read-only, without devices and set-uid."""
    # struct mount_attr: set RDONLY | NOSUID | NODEV, clear nothing, keep propagation and ids.
    attributes = ctypes.create_string_buffer((1 | 2 | 4).to_bytes(8, "little") + bytes(24), 32)
    pointer = ctypes.cast(attributes, ctypes.c_void_p)
    call(f"seal {target}", _MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, pointer, 32)


def umount(target: str, flags: int = 0) -> None:
    """Unmount `target`."""
    _checked(f"umount {target}", _libc.umount2(target.encode(), flags))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make `new_root` the root of this mount namespace."""
    call("pivot_root", _PIVOT_ROOT[MACHINE], new_root.encode(), put_old.encode())


def drop_capabilities() -> None:
    """Give up every capability, the bounding set included where that is allowed."""
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    header = ctypes.create_string_buffer(_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4), 8)
    _checked("capset", _libc.capset(header, ctypes.create_string_buffer(24)))


def _wide(argument: int | bytes | ctypes.c_void_p | None) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
