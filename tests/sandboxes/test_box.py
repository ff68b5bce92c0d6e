import ctypes
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from trillium_sandbox.box import empty_folder

USERS = (0x6A001, 0x6A002)


@pytest.fixture
def shared():
    """A folder that everybody may write to, below folders that everybody may enter."""
    folder = Path(tempfile.mkdtemp(prefix="trillium-shared-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def as_user(user, work):
    os.seteuid(user)
    try:
        work()
    finally:
        os.seteuid(0)


def grow(folder, depth, users):
    """Nest folders, each owned by the next user and closed to all; return those made."""
    made = []
    place = folder
    for n in range(depth):
        place = place / f"d{n}"
        user = users[n % len(users)]
        as_user(user, lambda place=place: place.mkdir(0o777) or place.chmod(0o777))
        as_user(user, (place / "file").touch)
        made.append((place, user))
    for place, user in reversed(made):
        as_user(user, lambda place=place: place.chmod(0))


def test_a_tree_of_any_mode_is_removed(tmp_path):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    for name in ("a/b/c", "a/b", "a"):
        (tmp_path / name).chmod(0)
    empty_folder(str(tmp_path))
    assert not list(tmp_path.iterdir())
    assert Path("/etc/passwd").exists()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path):
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    empty_folder(str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.security
def test_a_folder_that_becomes_a_link_after_it_was_looked_at_is_not_followed(tmp_path, monkeypatch):
    box, host = tmp_path / "box", tmp_path / "host"
    for place in (box / "swapped" / "inner", box / "d" / "swapped", host / "inner"):
        place.mkdir(parents=True)
    (host / "file").touch()
    host.chmod(0o700)
    libc, list_folder = ctypes.CDLL(None), os.listdir

    def swap(folder):
        names = list_folder(folder)
        if "swapped" in names:
            os.symlink(host, "link", dir_fd=folder)
            # renameat2 with RENAME_EXCHANGE
            assert libc.renameat2(folder, b"link", folder, b"swapped", 2) == 0
        return names

    monkeypatch.setattr(os, "listdir", swap)
    empty_folder(str(box))
    monkeypatch.undo()
    assert not list(box.iterdir())
    assert sorted(path.name for path in host.iterdir()) == ["file", "inner"]
    assert host.stat().st_mode & 0o777 == 0o700


@pytest.mark.security
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the two users of a pair")
def test_what_two_users_built_into_one_another_is_removed_without_any_other_power(shared):
    grow(shared, 40, USERS)
    empty_folder(str(shared), USERS)
    assert not list(shared.iterdir())
    assert os.geteuid() == 0


@pytest.mark.security
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the two users of a pair")
def test_what_stays_is_said(shared):
    grow(shared, 3, USERS)
    with pytest.raises(OSError, match="cannot be emptied"):
        empty_folder(str(shared), USERS[:1])
    assert os.geteuid() == 0
