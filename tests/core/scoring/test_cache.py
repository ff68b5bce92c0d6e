import logging
import os
import resource
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import pytest
from trillium.errors import BackendError
from trillium.scoring.cache import LogpCache, record_key

KEYS = [record_key("reference", digest) for digest in ("a", "b", "c")]
RECORDS = {
    KEYS[0]: np.array([-1.5, -0.25], np.float32),
    KEYS[1]: np.array([-3.0], np.float32),
    KEYS[2]: np.array([], np.float32),
}


def test_records_come_back_bit_for_bit(tmp_path: Path) -> None:
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        cache.put(RECORDS)
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        found = cache.get([*KEYS, record_key("other", "a")])
    assert set(found) == set(KEYS)
    for key, values in RECORDS.items():
        assert found[key].tobytes() == values.tobytes()
    assert cache.n_damaged == 0


def test_many_keys_are_read_in_several_queries(tmp_path: Path) -> None:
    keys = [record_key("reference", str(number)) for number in range(1203)]
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        cache.put({key: np.array([number], np.float32) for number, key in enumerate(keys)})
        found = cache.get(keys)
    assert [float(found[key][0]) for key in keys] == list(range(1203))


def test_existing_record_is_kept(tmp_path: Path) -> None:
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        cache.put({KEYS[1]: RECORDS[KEYS[1]]})
        cache.put({KEYS[1]: np.array([-99.0], np.float32)})
        assert cache.get(KEYS)[KEYS[1]].tolist() == [-3.0]


def test_damaged_record_is_dropped_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logps.sqlite"
    with LogpCache(path) as cache:
        cache.put(RECORDS)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE logps SET value = ? WHERE key = ?", (b"\0" * 8, KEYS[0]))
        database.execute("UPDATE logps SET value = ? WHERE key = ?", (b"\0" * 3, KEYS[1]))
    database.close()
    with LogpCache(path) as cache, caplog.at_level(logging.WARNING):
        assert set(cache.get(KEYS)) == {KEYS[2]}
        assert cache.n_damaged == 2
        cache.put(RECORDS)
        assert set(cache.get(KEYS)) == set(KEYS)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 2 damaged records (checksum does not match) were dropped and are computed again"
    ]


def test_file_that_is_no_database_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logps.sqlite"
    for number in (1, 2):
        path.write_bytes(b"not a database at all, " * 50)
        with LogpCache(path) as cache:
            assert cache.get(KEYS) == {}
            cache.put(RECORDS)
            assert set(cache.get(KEYS)) == set(KEYS)
        assert (tmp_path / f"logps.sqlite.damaged-{number}").read_bytes().startswith(b"not a")
    assert "was set aside as logps.sqlite.damaged-1" in caplog.text


def test_torn_pages_are_found_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "logps.sqlite"
    keys = [record_key("reference", str(number)) for number in range(400)]
    with LogpCache(path) as cache:
        cache.put({key: np.ones(100, np.float32) for key in keys})
    size = path.stat().st_size
    with path.open("r+b") as stream:
        stream.seek(size // 2)
        stream.write(os.urandom(size // 4))
    with LogpCache(path) as cache:
        assert cache.get(keys) == {}
    assert (tmp_path / "logps.sqlite.damaged-1").exists()


def test_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "logps.sqlite"
    with LogpCache(path) as cache:
        cache.put(RECORDS)
        # SQLite answers a full file exactly as it answers a full disk.
        (n_pages,) = cache._database.execute("PRAGMA page_count").fetchone()
        cache._database.execute(f"PRAGMA max_page_count = {n_pages}")
        big = {record_key("reference", "big"): np.zeros(100_000, np.float32)}
        with pytest.raises(BackendError, match=r"full, \d+ MiB free\); free some space"):
            cache.put(big)
        assert set(cache.get(KEYS)) == set(KEYS)
    with LogpCache(path) as cache:
        assert set(cache.get([*KEYS, *big])) == set(KEYS)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("size", ["24k", "64k"])  # SQLite's sentences for them differ
def test_a_disk_that_is_full_is_called_full(tmp_path: Path, size: str) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", tmp_path])
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    big = {record_key("reference", "big"): np.zeros(300_000, np.float32)}
    try:
        with (
            pytest.raises(BackendError, match=r"the reference cache .* full"),
            LogpCache(tmp_path / "logps.sqlite") as cache,
        ):
            cache.put(big)
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_quota_is_said_with_the_free_space_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "logps.sqlite"
    big = {record_key("reference", "big"): np.zeros(300_000, np.float32)}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LogpCache(path) as cache:
        cache.put(RECORDS)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            with pytest.raises(BackendError, match=r"disk I/O error, \d+ MiB free\); free some"):
                cache.put(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with LogpCache(path) as cache:
        assert set(cache.get([*KEYS, *big])) == set(KEYS)


@pytest.mark.parametrize("table", ["logps (key BLOB, score REAL)", "recipes (name TEXT)"])
def test_database_of_another_program_is_set_aside_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, table: str
) -> None:
    path = tmp_path / "logps.sqlite"
    database = sqlite3.connect(path)
    database.execute(f"CREATE TABLE {table}")
    database.commit()
    database.close()
    content = path.read_bytes()
    with LogpCache(path) as cache:
        cache.put(RECORDS)
        assert set(cache.get(KEYS)) == set(KEYS)
    assert (tmp_path / "logps.sqlite.damaged-1").read_bytes() == content
    assert caplog.messages == [
        f"{path}: the file holds other tables; it was set aside as logps.sqlite.damaged-1 and its "
        "records are computed again"
    ]


def test_place_that_cannot_hold_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "logps.sqlite").mkdir()
    with pytest.raises(BackendError, match="check that the folder can be written"):
        LogpCache(tmp_path / "logps.sqlite")


def test_file_hash_follows_content_not_name(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_bytes(b"weights")
    second.write_bytes(b"weights")
    with LogpCache(tmp_path / "logps.sqlite") as cache:
        before = cache.file_hash(first)
        assert cache.file_hash(second) == before
        first.write_bytes(b"other weights")
        assert cache.file_hash(first) != before


def test_two_processes_may_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "logps.sqlite"
    with LogpCache(path) as one, LogpCache(path) as other:
        one.put({KEYS[0]: RECORDS[KEYS[0]]})
        other.put({KEYS[1]: RECORDS[KEYS[1]]})
        assert set(one.get(KEYS)) == set(other.get(KEYS)) == set(KEYS[:2])
