"""Isolation levels: what each stops, what it does not, and which of them hold on this machine.

A level is probed by building it and running a program in it, never by reading a version.
"""

from __future__ import annotations

from dataclasses import dataclass

from trillium_sandbox.errors import SandboxError
from trillium_sandbox.limits import Limits

DEFAULT_LEVEL = 2
"""What generated code needs unless the caller lowers it in so many words."""


@dataclass(frozen=True)
class Level:
    """One isolation level."""

    number: int
    name: str
    stops: str
    does_not_stop: str


LEVELS = (
    Level(
        0,
        "none",
        "accidents: resource limits only",
        "anything hostile: files, network, other processes are open to the program",
    ),
    Level(
        1,
        "seccomp",
        "network, forking, executing, files outside the work folder",
        "filling the disk with many files, kernel bugs; without root, where programs are the "
        "caller's own user (and may change no modes and times): seeing names, sizes and dates of "
        "its files, more threads than the limit by a few times what the user has",
    ),
    Level(
        2,
        "namespaces",
        "the same, and: seeing any file, process or network of this machine; filling the disk",
        "kernel bugs, side channels, slowing the machine down within the limits",
    ),
    Level(
        3,
        "container",
        "the same, for an engine elsewhere too; memory, processes, processors of all programs",
        "kernel bugs (the kernel is the machine's), side channels; programs take turns in one "
        "container and its process space: users, rules and a swept folder are between them",
    ),
    Level(
        4,
        "gvisor",
        "the same, and most kernel bugs: programs call a kernel in user space",
        "bugs of that kernel, side channels; between programs what level 3 has, less Landlock",
    ),
    Level(
        5,
        "vm",
        "the same, and kernel bugs: the kernel is a virtual machine's",
        "bugs of the virtual machine, side channels; between programs, in one machine, what "
        "level 3 has",
    ),
)


@dataclass(frozen=True)
class Probe:
    """Whether a level holds here, and why or why not."""

    level: int
    available: bool
    reason: str


def probe() -> list[Probe]:
    """Build every level in turn, the highest last, and say which of them hold here."""
    return [probe_embedded(level) for level in (0, 1, 2)] + probe_docker()


def probe_docker() -> list[Probe]:
    """Run a program in a container of each kind that the engine offers: levels 3, 4 and 5.

    Quick where no engine answers.
    """
    higher = [level.number for level in LEVELS[3:]]
    try:
        from trillium_sandbox.docker import probing
    except ModuleNotFoundError as error:
        reason = f'the docker backend needs {error.name} (pip install "trillium[docker]")'
        return [Probe(level, False, reason) for level in higher]
    return probing.probe()


def describe_level() -> dict[str, str]:
    """Return what `trillium doctor` says: the highest level found, and advice where it is low."""
    held = [found for found in probe() if found.available]
    if not held:
        return {"found": "no level holds", "advice": "the sandbox needs Linux"}
    best = held[-1]
    found = f"level {best.level} ({LEVELS[best.level].name}): {best.reason}"
    if best.level >= DEFAULT_LEVEL:
        return {"found": found, "advice": ""}
    refused = probe_embedded(DEFAULT_LEVEL).reason
    advice = f"generated code needs level {DEFAULT_LEVEL} ({refused}); allow user namespaces"
    return {"found": found, "advice": advice}


def probe_embedded(level: int) -> Probe:
    """Start a zygote at `level`, which locks a child down, and end it again."""
    from trillium_sandbox.worker import Worker

    try:
        worker = Worker.start(level, Limits().disk_bytes)
    except SandboxError as error:
        return Probe(level, False, str(error).removeprefix(f"level {level}: "))
    worker.stop()
    users = "users of its own" if worker.own_users else "the caller's own user"
    rules = f"Landlock {worker.landlock}" if worker.landlock and level else "no Landlock"
    walls = ("resource limits", "seccomp", "namespaces, seccomp")[level]
    return Probe(level, True, f"{walls}, {rules}, {users}")
