"""Writes that survive kills and full disks, content hashes, and the lock of a folder."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from trillium.errors import BackendError, ConfigError
from trillium.files import (
    FolderLock,
    RowsFile,
    explain_failed_write,
    hash_json,
    hash_path,
    read_rows,
    write_atomically,
)


def test_a_file_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.json"
    write_atomically(target, "one")
    write_atomically(target, b"two")
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["file.json"]


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    write_atomically(target, "old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        with pytest.raises(BackendError, match=r"file.json: the disk or a quota is full \(.* MiB"):
            write_atomically(target, b"x" * 8192)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_each_failure_to_write_gets_its_own_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError), explain_failed_write(tmp_path / "file"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    with (
        pytest.raises(ConfigError, match=r"file: may not be written \(Read-only"),
        explain_failed_write(tmp_path / "file"),
    ):
        raise OSError(errno.EROFS, "Read-only file system")
    with (
        pytest.raises(BackendError, match="free some space and run the same command again"),
        explain_failed_write(tmp_path / "file"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_place_where_nothing_can_be_written_is_named_with_what_is_in_the_way(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError) as caught:
        write_atomically(tmp_path / "file" / "run.json", "{}")
    assert str(caught.value) == (
        f"{tmp_path}/file/run.json: cannot be written (Not a directory: {tmp_path}/file); "
        "choose another place"
    )
    with pytest.raises(ConfigError, match=r"folder: cannot be written \(Is a directory\)"):
        write_atomically(tmp_path / "folder", "{}")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_without_a_name_is_no_place_for_a_file() -> None:
    for place in (Path(), Path("/")):
        with pytest.raises(ConfigError, match="is a folder; give the path of a file"):
            write_atomically(place, "text")


def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"id": "a", "text": "é\u2028\n", "values": [1, 2.5]}, {"id": "b", "text": None}]
    with RowsFile(path, key="id") as stream:
        for row in rows:
            stream.append(row)
    assert list(read_rows(path)) == rows
    with RowsFile(path, key="id") as stream:
        assert stream.finished == {"a", "b"}


def test_rows_written_together_are_as_if_written_one_by_one(tmp_path: Path) -> None:
    rows = [{"id": "a"}, {"id": "b", "text": "é\n"}]
    with RowsFile(tmp_path / "together", key="id") as stream:
        stream.extend(rows)
        stream.extend([])
        assert stream.finished == {"a", "b"}
    with RowsFile(tmp_path / "apart", key="id") as stream:
        for row in rows:
            stream.append(row)
    assert (tmp_path / "together").read_bytes() == (tmp_path / "apart").read_bytes()


@pytest.mark.parametrize("n_torn", [1, 5, 9])
def test_a_torn_last_row_is_dropped_and_the_bytes_end_up_the_same(
    tmp_path: Path, n_torn: int
) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    for path in (whole, torn):
        with RowsFile(path, key="id") as stream:
            for i in range(3):
                stream.append({"id": i})
    os.truncate(torn, torn.stat().st_size - n_torn)
    with RowsFile(torn, key="id") as stream:
        for i in range(3):
            if str(i) not in stream.finished:
                stream.append({"id": i})
    assert torn.read_bytes() == whole.read_bytes()


def test_a_row_damaged_in_the_middle_costs_the_rows_after_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n{"id": \x00}\n{"id": 3}\n')
    with RowsFile(path, key="id") as stream:
        assert stream.finished == {"1"}
    assert caplog.messages == [f"{path}: dropped 20 bytes of an unfinished row after row 1"]


def test_a_row_that_does_not_fit_on_the_disk_leaves_only_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RowsFile(path, key="id") as stream:
        stream.append({"id": "first"})
        before = path.read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
        try:
            with pytest.raises(BackendError, match="quota is full"):
                stream.append({"id": "second", "text": "x" * 8192})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert path.read_bytes() == before
        stream.append({"id": "second"})
    assert [row["id"] for row in read_rows(path)] == ["first", "second"]


def test_a_truly_full_disk_is_explained_and_keeps_whole_rows(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed, so no small disk can be mounted")
    script = f"""
from pathlib import Path
from trillium.errors import BackendError
from trillium.files import RowsFile, read_rows
path = Path({str(tmp_path)!r}) / "disk" / "rows.jsonl"
rows = RowsFile(path, key="id")
try:
    for i in range(1000):
        rows.append({{"id": i, "text": "x" * 1000}})
except BackendError as error:
    print(len(list(read_rows(path))) == len(rows.finished) > 10, "MiB free" in str(error))
"""
    (tmp_path / "disk").mkdir()
    mount = f'mount -t tmpfs -o size=64k none {tmp_path / "disk"} && exec {sys.executable} -c "$0"'
    reply = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare:" in reply.stderr or "mount:" in reply.stderr:
        pytest.skip(f"no small disk can be mounted here: {reply.stderr.strip()}")
    assert (reply.stdout, reply.stderr) == ("True True\n", "")


def test_hashes_follow_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "file").write_text("abc")
    assert hash_path(one) == hash_path(two)
    assert hash_path(one / "sub" / "file") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    (two / "sub" / "file").rename(two / "sub" / "other")
    assert hash_path(one) != hash_path(two)
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1})


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    script = f"""
from pathlib import Path
from trillium.errors import ConfigError
from trillium.files import FolderLock
try:
    FolderLock(Path({str(tmp_path)!r}))
except ConfigError as error:
    print(error)
"""
    complaint = f"{tmp_path}: is in use by process {os.getpid()}; wait for it, stop it, "
    assert complaint in _python(script)
    lock.release()
    assert _python(script) == ""


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from trillium.files import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    FolderLock(tmp_path).release()


def test_a_forked_worker_does_not_keep_the_lock(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from trillium.files import FolderLock
lock = FolderLock(Path({str(tmp_path)!r}))
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE)
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
    try:
        FolderLock(tmp_path).release()
    except ConfigError:
        pytest.fail("the worker that outlived its parent still holds the lock")
    finally:
        parent.communicate(b"")


def _python(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout
