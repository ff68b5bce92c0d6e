"""Fetch one pinned wheel from the index that pip is configured with, resuming after a kill.

pip resolves the address (so mirrors, proxies and local folders work as they do for packages); the
bytes come by range requests into a `.part` file that is checked against the pinned sha256.
"""

import http.client
import json
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trillium.errors import BackendError
from trillium.files import explain_failed_write, hash_path
from trillium.progress import Progress

log = logging.getLogger(__name__)

_CHUNK = 1 << 20
_CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass(frozen=True)
class Wheel:
    """A file of a package index by project, version, size and sha256."""

    project: str
    version: str
    sha256: str
    n_bytes: int

    @property
    def file_name(self) -> str:
        """Return the name of the (pure Python) wheel file."""
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        """Return what pip is asked for."""
        return f"{self.project}=={self.version}"


def fetch_wheel(wheel: Wheel, folder: Path) -> Path:
    """Return the path of the verified wheel in `folder`, downloading what is missing of it.

    Raises BackendError when no index has it or its bytes are not the pinned ones.
    """
    target = folder / wheel.file_name
    if target.exists() and hash_path(target) == wheel.sha256:
        return target
    folder.mkdir(parents=True, exist_ok=True)
    address = _find_address(wheel)
    try:
        download(address, target, sha256=wheel.sha256, n_bytes=wheel.n_bytes)
    except (urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
        # An index behind a login or a private certificate authority: pip knows how to reach it.
        log.warning("%s: direct download failed (%s); trying pip", wheel.requirement, error)
        with tempfile.TemporaryDirectory(dir=folder) as fresh:
            _pip("download", wheel, "--dest", fresh)
            shutil.move(Path(fresh) / wheel.file_name, target)
        verify(target, wheel.sha256)
    return target


def download(address: str, target: Path, *, sha256: str, n_bytes: int) -> None:
    """Download `address` to `target`, continuing `target.part` when an earlier attempt left one.

    A part that turns out wrong is thrown away and fetched once more from the start.
    """
    part = target.with_name(target.name + ".part")
    for attempt in range(2):
        with explain_failed_write(part):
            _continue(address, part, n_bytes)
        if hash_path(part) == sha256:
            part.replace(target)
            return
        part.unlink()
        if attempt == 0:
            log.warning("%s: the bytes are not the pinned ones; downloading again", target.name)
    raise BackendError(
        f"{target.name}: downloaded bytes do not have sha256 {sha256}; "
        "the index serves another file under this name: use another, or supply the file by path"
    )


def verify(path: Path, sha256: str) -> None:
    """Raise BackendError unless the file has the pinned sha256."""
    found = hash_path(path)
    if found != sha256:
        raise BackendError(
            f"{path}: has sha256 {found} (expected {sha256}); supply the pinned file"
        )


def _continue(address: str, part: Path, n_bytes: int) -> None:
    if urllib.parse.urlsplit(address).scheme == "file":
        shutil.copyfile(urllib.request.url2pathname(urllib.parse.urlsplit(address).path), part)
        return
    have = part.stat().st_size if part.exists() else 0
    if have >= n_bytes:
        return
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60, context=_certificates()) as reply:
        if reply.status != 206:
            have = 0  # the server sends everything, whatever was asked for
        progress = Progress(
            part.name.removesuffix(".part"),
            n_total=n_bytes // 1000,
            n_done=have // 1000,
            unit="kB",
            quiet_s=10.0,
        )
        with part.open("r+b" if have else "wb") as stream, progress:
            stream.seek(have)
            for block in _blocks(reply):
                stream.write(block)
                have += len(block)
                progress.advance(have // 1000 - progress.n_done)
            stream.truncate()


def _blocks(reply: object) -> Iterator[bytes]:
    read = reply.read  # type: ignore[attr-defined]
    try:
        while block := read(_CHUNK):
            yield block
    except (ssl.SSLError, http.client.HTTPException) as error:
        # The error number of the former counts TLS errors and must not be taken for a file's.
        raise ConnectionError(str(error) or repr(error)) from error


def _find_address(wheel: Wheel) -> str:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _pip("install", wheel, "--dry-run", "--ignore-installed", "--report", str(report))
        address: str = json.loads(report.read_text())["install"][0]["download_info"]["url"]
    return address


def _pip(command: str, wheel: Wheel, *options: str) -> None:
    """Ask pip of this Python; two tries of 20 s each, so that a missing network shows soon."""
    arguments = [sys.executable, "-m", "pip", command, "--no-deps", "--quiet", "--retries", "1"]
    arguments += ["--timeout", "20", "--disable-pip-version-check", *options, wheel.requirement]
    reply = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if reply.returncode:
        if "after connection broken" in reply.stderr:
            raise BackendError(f"{wheel.requirement}: the package index cannot be reached")
        reasons = [line for line in reply.stderr.splitlines() if line.startswith("ERROR")]
        reason = (reasons or reply.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(f"{wheel.requirement}: pip found no such wheel ({reason})")


def _certificates() -> ssl.SSLContext:
    chosen = next((os.environ[name] for name in _CERTIFICATES if os.environ.get(name)), None)
    return ssl.create_default_context(cafile=chosen)
