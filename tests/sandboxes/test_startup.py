import os
import shutil
import tempfile
from pathlib import Path

import pytest
from trillium_sandbox.startup import empty_folder

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
