"""What of this package runs inside the image, and the hash by which an image says that it holds it.

Run as a file, prints the hash: the build script (images/python/build) makes it the image's label.
Imports nothing of the package, so that it needs no installation.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

IMAGE = "trillium-sandbox-python"
LABEL = "trillium.sources"

# fmt: off
INSIDE = (
    "assertions", "bench", "box", "changes", "channel", "child", "codec", "container", "copies",
    "crowd", "decode", "descriptors", "embedded", "engine", "errors", "frames", "handles", "judge",
    "landlock", "limits", "linux", "named", "namespaces", "opcodes", "operations", "outcomes",
    "peer", "raised", "remote", "scope", "seccomp", "settings", "startup", "syscalls", "turnstile",
    "verdicts", "walls", "wire", "worker", "zygote",
)
# fmt: on
"""Modules of trillium_sandbox that the Dockerfile copies."""

_PACKAGE = Path(__file__).parents[1]


def source_hash() -> str:
    """Return one hash of all that makes an image: its Dockerfile and every file copied into it."""
    total = hashlib.sha256()
    copied = [_PACKAGE / f"{name}.py" for name in INSIDE]
    for path in (image_folder() / "Dockerfile", *copied):
        content = path.read_bytes()
        total.update(f"{path.name} {len(content)}\n".encode() + content)
    return total.hexdigest()


def image_folder() -> Path:
    """Return the folder of the Dockerfile, the seccomp profile and the build script."""
    inside = _PACKAGE / "images" / "python"  # of an installed package
    return inside if inside.is_dir() else _PACKAGE.parent / "images" / "python"


if __name__ == "__main__":
    print(source_hash())
