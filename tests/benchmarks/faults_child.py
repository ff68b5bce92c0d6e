"""Run the `trillium` command and die by SIGKILL at a chosen write; `faults.py` starts this.

A write is a file opened for writing, renamed, removed, truncated or synced below one folder. They
are counted, not timed, so that every state a kill can leave on disk is as likely as it is long
lived or short lived.

    python faults_child.py FOLDER COUNT_FILE KILL_AT FROM -- code run run.yaml

KILL_AT 0 never kills and leaves a number of writes in COUNT_FILE. They are counted from the first
to the last one to a path that contains FROM, or all of them where FROM is empty.
"""

import os
import signal
import sys
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR
_NAMED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link"}


class Writes:
    """Count writes below `folder`; kill this process at number `kill_at`."""

    def __init__(self, folder: str, *, kill_at: int, begin: str) -> None:
        """Count from the first path that contains `begin` to the last."""
        self._folder, self._kill_at, self._begin = folder, kill_at, begin
        self.n = self.n_until_last = 0

    def hear(self, event: str, values: tuple[object, ...]) -> None:
        """Take an audit event of the interpreter."""
        is_opened = event == "open" and isinstance(values[2], int) and values[2] & _WRITES
        if is_opened or event in _NAMED:
            self.count(values[0])

    def count(self, path: object) -> None:
        """Count one write to `path`, or end here."""
        if not isinstance(path, str | os.PathLike) or self._folder not in os.fspath(path):
            return
        is_meant = self._begin in os.fspath(path)
        if not is_meant and not self.n:
            return
        self.n += 1
        if is_meant:
            self.n_until_last = self.n
        if self.n == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Listen, then run the command in this process."""
    folder, count_file, kill_at, begin, _, *command = sys.argv[1:]
    writes = Writes(folder, kill_at=int(kill_at), begin=begin)
    sys.addaudithook(writes.hear)
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        writes.count(Path(f"/proc/self/fd/{descriptor}").readlink())
        real_fsync(descriptor)

    os.fsync = fsync
    sys.argv = ["trillium", *command]
    from trillium.cli import main as trillium

    try:
        trillium()
    finally:
        Path(count_file).write_text(str(writes.n_until_last))


if __name__ == "__main__":
    main()
