import struct

import pytest
from trillium_sandbox import linux, seccomp, syscalls

ALLOW = 0x7FFF0000
EPERM = 0x00050001
ENOSYS = 0x00050026
ENOTTY = 0x00050019
KILL = 0x80000000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[linux.MACHINE]
OWN = 4242


def decide(name, *arguments, arch=ARCH, withheld=frozenset(), may_fork=False):
    """Interpret the filter as the kernel does: only the six instructions that it uses."""
    number = name if isinstance(name, int) else linux.NUMBERS[name]
    words = [*arguments, *[0] * (6 - len(arguments))]
    context = struct.pack("<IIQ6Q", number, arch, 0, *words)
    program = seccomp.build(withheld, may_fork=may_fork).replace(
        struct.pack("<I", seccomp._SELF), struct.pack("<I", OWN)
    )
    steps = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", context, constant)
        elif code == 0x06:
            return constant
        else:
            holds = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }[code]
            at += if_true if holds else if_false


CONDITIONAL = {
    "clone", "clone3", "fcntl", "ioctl", "kill", "prctl", "prlimit64", "socketpair", "tgkill"
}  # fmt: skip


def test_every_listed_call_is_allowed():
    for name in linux.NUMBERS.keys() - CONDITIONAL:
        assert decide(name) == ALLOW, name


def test_every_other_number_is_refused():
    known = set(linux.NUMBERS.values())
    for number in set(range(450)) - known:
        assert decide(number) == EPERM, number
    for number in (450, 9999, 0x40000000, 0x40000039, 0xFFFFFFFF):
        assert decide(number) == ENOSYS, number


def test_a_judge_may_fork_and_lock_its_forks_down_and_nothing_else():
    fork, thread, users = 0x01200011, 0x003D0F00, 0x10000011
    for may_fork, answer in ((False, EPERM), (True, ALLOW)):
        assert decide("clone", fork, may_fork=may_fork) == answer
        assert decide("clone", thread, may_fork=may_fork) == ALLOW
        assert decide("clone", users, may_fork=may_fork) == EPERM
        assert decide("prctl", 22, may_fork=may_fork) == answer  # PR_SET_SECCOMP
        assert decide("prctl", 1, may_fork=may_fork) == answer  # PR_SET_PDEATHSIG
        assert decide("prctl", 4, may_fork=may_fork) == EPERM  # PR_SET_DUMPABLE
    for name in linux.NUMBERS.keys() - CONDITIONAL:
        assert decide(name, may_fork=True) == ALLOW, name
    for number in set(range(450)) - set(linux.NUMBERS.values()):
        assert decide(number, may_fork=True) == EPERM, number


def test_calls_that_are_withheld_are_refused_and_no_others():
    withheld = syscalls.MODES_AND_TIMES
    for name in linux.NUMBERS.keys() - CONDITIONAL:
        expected = EPERM if name in withheld else ALLOW
        assert decide(name, withheld=withheld) == expected, name
    assert withheld == syscalls.X86_64.keys() & withheld


def test_another_processors_calls_kill():
    assert decide("read", arch=0x40000003) == KILL


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("clone", (0x00010000,), ALLOW),
        ("clone", (17,), EPERM),
        ("clone", (0x00010000 | 0x10000000,), EPERM),
        ("clone", (0x00010000 | 0x80,), EPERM),
        ("clone3", (), ENOSYS),
        ("kill", (OWN, 9), ALLOW),
        ("kill", (1, 9), EPERM),
        ("kill", (0, 9), EPERM),
        ("kill", (0xFFFFFFFF, 9), EPERM),
        ("tgkill", (OWN, 7, 9), ALLOW),
        ("tgkill", (1, 1, 9), EPERM),
        ("prlimit64", (0,), ALLOW),
        ("prlimit64", (OWN,), ALLOW),
        ("prlimit64", (1,), EPERM),
        ("socketpair", (1,), ALLOW),
        ("socketpair", (2,), EPERM),
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), ENOTTY),
        ("fcntl", (0, 1), ALLOW),
        ("fcntl", (0, 1033), EPERM),
        ("fcntl", (0, 8), EPERM),
        ("prctl", (15,), ALLOW),
        ("prctl", (22,), EPERM),
    ],
)
def test_arguments_decide(name, arguments, answer):
    assert decide(name, *arguments) == answer


@pytest.mark.parametrize("table", [syscalls.X86_64, syscalls.AARCH64])
def test_no_table_allows_what_would_open_the_cage(table):
    dangerous = {
        "fork", "vfork", "execve", "execveat", "socket", "connect", "bind", "ptrace", "mount",
        "unshare", "setns", "bpf", "memfd_create", "io_uring_setup", "process_vm_writev", "chown",
        "keyctl", "userfaultfd", "perf_event_open", "pidfd_open", "pidfd_send_signal", "setuid",
        "rt_sigqueueinfo", "mknodat", "seccomp",
    }  # fmt: skip
    assert not dangerous & table.keys()


def test_no_number_stands_for_two_calls():
    for table in (syscalls.X86_64, syscalls.AARCH64):
        assert len(set(table.values())) == len(table)
