"""The system calls a program may make, as a BPF program of our own.

An allow list: what syscalls.py does not name is refused with EPERM, and with ENOSYS when it is
newer than the list, so that libraries fall back. No fork, no exec, no sockets but socketpair, no
signals to others: a program cannot leave a process behind, and there is nothing to sweep after it.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from trillium_sandbox import linux

_LAST_KNOWN = 450
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SELF = 0x7FEDCBA9
"""Stands for the child's own process id until the filter is installed."""

_CLONE_THREAD = 0x00010000
_CLONE_NAMESPACES = 0x7E020080
# F_SETOWN, F_SETSIG and F_SETOWN_EX send signals, the others change what others see of a file.
_FCNTL_REFUSED = (8, 10, 15, 1024, 1026, 1031, 1033)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_IOCTL_ALLOWED = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_CAPBSET_READ, PR_GET_NO_NEW_PRIVS
_PRCTL_ALLOWED = (3, 15, 16, 23, 39)
_AF_UNIX = 1

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06
_KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_Block = list[bytes]


class Filter:
    """The assembled filter, ready to be installed by a child under its own process id."""

    def __init__(self) -> None:
        """Assemble it for this machine's processor, in memory that the kernel can read it from."""
        program = build()
        pattern = struct.pack("<I", _SELF)
        self._buffer = ctypes.create_string_buffer(program, len(program))
        self._places = [at for at in range(4, len(program), 8) if program[at : at + 4] == pattern]
        # struct sock_fprog: a 16-bit count, six bytes of padding, a pointer
        header = struct.pack("<H6xQ", len(program) // 8, ctypes.addressof(self._buffer))
        self._header = ctypes.create_string_buffer(header, 16)
        self._pointer = ctypes.cast(self._header, ctypes.c_void_p)

    def install(self, own_pid: int) -> None:
        """Put this process, for good, under the filter; it must have set no_new_privs."""
        for place in self._places:
            struct.pack_into("<I", self._buffer, place, own_pid)
        linux.set_seccomp(self._pointer)


def build() -> bytes:
    """Return the filter as BPF instructions, with a stand-in for the child's process id.

    The numbers are searched as a binary tree over ranges of equal answers, six steps deep.
    """
    numbers = linux.NUMBERS
    refuse = [_instruction(_RETURN, _ERRNO | errno.EPERM)]
    allow = [_instruction(_RETURN, _ALLOW)]
    conditional = _conditional()
    blocks = {number: conditional.get(name, allow) for name, number in numbers.items()}
    segments: list[tuple[int, _Block]] = []
    for number in range(_LAST_KNOWN):
        block = blocks.get(number, refuse)
        if not segments or segments[-1][1] != block:
            segments.append((number, block))
    segments.append((_LAST_KNOWN, [_instruction(_RETURN, _ERRNO | errno.ENOSYS)]))
    program = [
        _instruction(_LOAD_WORD, 4),
        _instruction(_JUMP_EQUAL, _AUDIT_ARCH[linux.MACHINE], 1, 0),
        _instruction(_RETURN, _KILL_PROCESS),
        _instruction(_LOAD_WORD, 0),
        *_search(segments),
    ]
    return b"".join(program)


def _conditional() -> dict[str, _Block]:
    own = (_SELF,)
    return {
        "clone": [
            _argument(0),
            _instruction(_JUMP_ANY_BIT, _CLONE_NAMESPACES, 1, 0),
            _instruction(_JUMP_ANY_BIT, _CLONE_THREAD, 1, 0),
            _instruction(_RETURN, _ERRNO | errno.EPERM),
            _instruction(_RETURN, _ALLOW),
        ],
        # glibc falls back to clone, whose flags a filter can read.
        "clone3": [_instruction(_RETURN, _ERRNO | errno.ENOSYS)],
        "fcntl": _only(1, _FCNTL_REFUSED, found=_ERRNO | errno.EPERM, otherwise=_ALLOW),
        "ioctl": _only(1, _IOCTL_ALLOWED, otherwise=_ERRNO | errno.ENOTTY),
        "prctl": _only(0, _PRCTL_ALLOWED),
        "kill": _only(0, own),
        "tgkill": _only(0, own),
        "prlimit64": _only(0, (0, *own)),
        "socketpair": _only(0, (_AF_UNIX,)),
    }


def _only(
    argument: int,
    values: tuple[int, ...],
    *,
    found: int = _ALLOW,
    otherwise: int = _ERRNO | errno.EPERM,
) -> _Block:
    tests = [
        _instruction(_JUMP_EQUAL, value, len(values) - at, 0) for at, value in enumerate(values)
    ]
    ends = [_instruction(_RETURN, otherwise), _instruction(_RETURN, found)]
    return [_argument(argument), *tests, *ends]


def _search(segments: list[tuple[int, _Block]]) -> _Block:
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    low, high = _search(segments[:middle]), _search(segments[middle:])
    return [_instruction(_JUMP_GREATER_EQUAL, segments[middle][0], len(low), 0), *low, *high]


def _argument(index: int) -> bytes:
    # struct seccomp_data: nr, arch, instruction pointer, then six 64-bit arguments, low word first
    return _instruction(_LOAD_WORD, 16 + 8 * index)


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, constant)
