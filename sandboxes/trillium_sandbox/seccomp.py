"""The system calls a program may make, as a BPF program of our own.

An allow list: what syscalls.py does not name is refused with EPERM, and with ENOSYS when it is
newer than the list, so that libraries fall back. No fork, no exec, no sockets but socketpair, no
signals to others: a program cannot leave a process behind, and there is nothing to sweep after it.
A judge may fork as long as it runs no test itself, and puts its forks under the same filter.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from typing import NamedTuple

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
# PR_SET_PDEATHSIG, PR_SET_SECCOMP
_PRCTL_OF_JUDGES = (1, 22)
_AF_UNIX = 1

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_GREATER_EQUAL = 0x35
_JUMP_ANY_BIT = 0x45
_RETURN = 0x06
_KILL_PROCESS = 0x80000000
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000

_ANSWERS = {
    "allow": _ALLOW,
    "refuse": _ERRNO | errno.EPERM,
    "unknown": _ERRNO | errno.ENOSYS,
    "no terminal": _ERRNO | errno.ENOTTY,
    "end": _KILL_PROCESS,
}


class Filter:
    """The assembled filter, ready to be installed by a child under its own process id."""

    def __init__(self, withheld: frozenset[str] = frozenset(), *, may_fork: bool = False) -> None:
        """Assemble it for this machine's processor, in memory that the kernel can read it from.

        `withheld` names calls of the list that these children may not make. With `may_fork`, it is
        a judge's: forks take their own filter on top, and inherit nothing that names the judge.
        """
        program = build(withheld, may_fork=may_fork)
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


def build(withheld: frozenset[str] = frozenset(), *, may_fork: bool = False) -> bytes:
    """Return the filter as BPF instructions, with a stand-in for the child's process id.

    The numbers are searched as a binary tree over ranges of equal answers, seven steps deep. Every
    child has the kernel compile this: the answers stand once, at the end, and all jump to them.
    """
    blocks = _conditional(may_fork)
    labels = {
        number: name if name in blocks else "allow"
        for name, number in linux.NUMBERS.items()
        if name not in withheld
    }
    segments: list[tuple[int, str]] = []
    for number in range(_LAST_KNOWN):
        label = labels.get(number, "refuse")
        if not segments or segments[-1][1] != label:
            segments.append((number, label))
    segments.append((_LAST_KNOWN, "unknown"))
    steps = [
        _Step(_LOAD_WORD, 4),
        _Step(_JUMP_EQUAL, _AUDIT_ARCH[linux.MACHINE], "", "end"),
        _Step(_LOAD_WORD, 0),
        *_search(segments),
    ]
    for name, block in blocks.items():
        steps += [block[0]._replace(label=name), *block[1:]]
    steps += [_Step(_RETURN, answer, label=name) for name, answer in _ANSWERS.items()]
    return _assemble(steps)


class _Step(NamedTuple):
    """One instruction; a jump names the labels it leads to, and nothing for the next step."""

    code: int
    constant: int
    if_true: str = ""
    if_false: str = ""
    label: str = ""


def _assemble(steps: list[_Step]) -> bytes:
    places = {step.label: at for at, step in enumerate(steps) if step.label}
    return b"".join(
        struct.pack(
            "<HBBI",
            step.code,
            places[step.if_true] - at - 1 if step.if_true else 0,
            places[step.if_false] - at - 1 if step.if_false else 0,
            step.constant,
        )
        for at, step in enumerate(steps)
    )


def _conditional(may_fork: bool) -> dict[str, list[_Step]]:
    others = "allow" if may_fork else "refuse"
    prctl = (*_PRCTL_ALLOWED, *_PRCTL_OF_JUDGES) if may_fork else _PRCTL_ALLOWED
    blocks = {
        "clone": [
            _argument(0),
            _Step(_JUMP_ANY_BIT, _CLONE_NAMESPACES, "refuse", ""),
            _Step(_JUMP_ANY_BIT, _CLONE_THREAD, "allow", others),
        ],
        # glibc falls back to clone, whose flags a filter can read.
        "clone3": [_Step(_RETURN, _ANSWERS["unknown"])],
        "fcntl": _compare(1, _FCNTL_REFUSED, "refuse", "allow"),
        "ioctl": _compare(1, _IOCTL_ALLOWED, "allow", "no terminal"),
        "prctl": _compare(0, prctl, "allow", "refuse"),
        "kill": _compare(0, (_SELF,), "allow", others),
        "tgkill": _compare(0, (_SELF,), "allow", others),
        "prlimit64": _compare(0, (0, _SELF), "allow", others),
        "socketpair": _compare(0, (_AF_UNIX,), "allow", "refuse"),
    }
    return {name: block for name, block in blocks.items() if name in linux.NUMBERS}


def _compare(argument: int, values: tuple[int, ...], found: str, otherwise: str) -> list[_Step]:
    tests = [_Step(_JUMP_EQUAL, value, found) for value in values]
    return [_argument(argument), *tests[:-1], tests[-1]._replace(if_false=otherwise)]


def _search(segments: list[tuple[int, str]], label: str = "") -> list[_Step]:
    """Return a tree of comparisons over at least two ranges, labelled by where it begins."""
    middle = len(segments) // 2
    low, high = segments[:middle], segments[middle:]
    to_low = low[0][1] if len(low) == 1 else ""
    to_high = high[0][1] if len(high) == 1 else f"from {high[0][0]}"
    steps = [_Step(_JUMP_GREATER_EQUAL, high[0][0], to_high, to_low, label)]
    steps += _search(low) if len(low) > 1 else []
    steps += _search(high, to_high) if len(high) > 1 else []
    return steps


def _argument(index: int) -> _Step:
    # struct seccomp_data: nr, arch, instruction pointer, then six 64-bit arguments, low word first
    return _Step(_LOAD_WORD, 16 + 8 * index)
