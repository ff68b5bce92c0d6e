"""Downloads from a server on this machine: resumed, verified, and refused when they are wrong."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from trillium.downloads import Wheel, download, fetch_wheel
from trillium.errors import BackendError

CONTENT = bytes(range(256)) * 8192
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer(ThreadingHTTPServer):
    """Serve CONTENT; `can_resume` decides about ranges, `asked` keeps what clients wanted."""

    can_resume = True
    asked: list[str | None]


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = 0
        if wanted and self.server.can_resume:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(("127.0.0.1", 0), _Handler) as running:
        running.asked = []
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def get(server: FileServer, target: Path, sha256: str = SHA256) -> None:
    address = f"http://127.0.0.1:{server.server_port}/file"
    download(address, target, sha256=sha256, n_bytes=len(CONTENT))


def test_a_file_arrives_whole(server: FileServer, tmp_path: Path) -> None:
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_part_left_by_a_kill_is_continued(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1_500_000])
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["bytes=1500000-"]


def test_a_complete_part_needs_no_request(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    get(server, tmp_path / "file")
    assert server.asked == []


def test_a_server_without_ranges_sends_everything_again(server: FileServer, tmp_path: Path) -> None:
    server.can_resume = False
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_wrong_part_is_thrown_away_once(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file.part").write_bytes(b"wrong")
    get(server, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["bytes=5-", None]
    assert caplog.messages == ["file: the bytes are not the pinned ones; downloading again"]


def test_bytes_that_stay_wrong_are_refused(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"file: downloaded bytes do not have sha256 0000"):
        get(server, tmp_path / "file", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_comes_from_where_pip_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = write_wheel(tmp_path / "index", {"pinned_thing/file.txt": b"hello"})
    use_only(monkeypatch, tmp_path / "index")
    path = fetch_wheel(wheel, tmp_path / "downloads")
    assert path.read_bytes() == (tmp_path / "index" / wheel.file_name).read_bytes()
    (tmp_path / "index" / wheel.file_name).unlink()
    assert fetch_wheel(wheel, tmp_path / "downloads") == path, "the verified file is used again"


def test_an_index_without_the_wheel_says_what_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    use_only(monkeypatch, tmp_path / "index")
    wheel = Wheel("pinned-thing", "1.0", "0" * 64, 10)
    with pytest.raises(BackendError, match=r"pinned-thing==1\.0: pip found no such wheel \(ERROR"):
        fetch_wheel(wheel, tmp_path / "downloads")


def test_an_index_out_of_reach_is_told_from_one_without_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_only(monkeypatch, tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        with pytest.raises(BackendError, match=r"pinned-thing==1\.0: the package index cannot be"):
            fetch_wheel(Wheel("pinned-thing", "1.0", "0" * 64, 10), tmp_path / "downloads")


def use_only(monkeypatch: pytest.MonkeyPatch, index: Path) -> None:
    """Point pip at one folder and at nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


def write_wheel(index: Path, files: dict[str, bytes]) -> Wheel:
    """Write a minimal wheel named pinned-thing 1.0 and return its pin."""
    import zipfile

    index.mkdir(parents=True, exist_ok=True)
    path = index / "pinned_thing-1.0-py3-none-any.whl"
    facts = "pinned_thing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(
            f"{facts}/METADATA", "Metadata-Version: 2.1\nName: pinned-thing\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{facts}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{facts}/RECORD", "")
    content = path.read_bytes()
    return Wheel("pinned-thing", "1.0", hashlib.sha256(content).hexdigest(), len(content))
