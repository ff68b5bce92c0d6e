"""What a result was computed with: package versions, git commit, processor, memory.

Nothing here imports torch, so that it can be read and printed at once.
"""

import functools
import os
import platform
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "trillium",
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "datasets",
    "bitsandbytes",
    "trl",
    "numpy",
    "pyarrow",
    "pydantic",
)


def describe_environment() -> dict[str, object]:
    """Return versions, commit, Python and processor as JSON values; the same on every call."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor_name(),
        "n_cpus": count_cpus(),
        "memory_bytes": memory_bytes(),
        "packages": package_versions(),
        "git_commit": git_commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def package_versions() -> dict[str, str]:
    """Return the installed version of each package that can change a result."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the source tree, "+changes" if edited; None from a wheel."""
    folder = Path(__file__).resolve().parent
    git = shutil.which("git")
    if git is None or "site-packages" in folder.parts:
        return None
    commit = _answer([git, "-C", str(folder), "rev-parse", "HEAD"])
    if commit is None:
        return None
    changes = _answer([git, "-C", str(folder), "status", "--porcelain", "--untracked-files=no"])
    return commit + ("+changes" if changes else "")


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the feature flags that Linux reports for the first processor, such as avx512_bf16."""
    return frozenset(_cpuinfo("flags").split()) | frozenset(_cpuinfo("Features").split())


def processor_name() -> str:
    """Return the model name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def count_cpus() -> int:
    """Return how many processors this process may use, by affinity and by cgroup quota."""
    n_cpus = len(os.sched_getaffinity(0))
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        n_cpus = min(n_cpus, max(1, round(int(quota[0]) / int(quota[1]))))
    return n_cpus


def memory_bytes() -> int:
    """Return how much memory this process may use: of the machine, or of the cgroup if less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process, without its children."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cpuinfo(field: str) -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _answer(command: list[str]) -> str | None:
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return reply.stdout.strip()
