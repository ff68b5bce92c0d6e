"""Progress on a terminal and elsewhere; what was done before counts as done, not as speed."""

import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest
from trillium.progress import Progress, format_duration


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "shown").open("w+") as opened:
        yield opened


def shown(stream: TextIO) -> str:
    stream.seek(0)
    return stream.read()


def test_without_a_terminal_the_end_is_one_line_and_no_control_codes(
    stream: TextIO,
) -> None:
    with Progress("sample", n_total=4, unit="tasks", stream=stream) as progress:
        for _ in range(4):
            progress.advance()
    assert shown(stream) == "sample: 4/4 tasks in 0 s\n"


def test_without_a_terminal_lines_are_as_sparse_as_asked(stream: TextIO) -> None:
    with Progress("sample", n_total=3, stream=stream, quiet_s=0.0) as progress:
        progress.advance()
        progress.advance(2)
    lines = shown(stream).splitlines()
    assert [line.split(",")[0] for line in lines[:2]] == ["sample: 1/3 items", "sample: 3/3 items"]
    assert lines[1].endswith("/s, 0 s left")


def test_earlier_work_is_no_speed(stream: TextIO) -> None:
    with Progress("sample", n_total=10, n_done=6, stream=stream) as progress:
        assert progress.describe() == "sample: 6/10 items"
        progress.advance()
        rate = re.fullmatch(r"sample: 7/10 items, ([\d.]+)/s, 0 s left", progress.describe())
    assert rate is not None
    assert shown(stream).startswith("sample: 6/10 items\n")


def test_a_terminal_gets_a_bar_with_rate_and_time_left() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        with Progress("sample", n_total=2, stream=stream) as progress:
            progress.advance()
            progress.advance()
        stream.flush()
        # A terminal hands over what it has, which under load is a part of what was written.
        picture = ""
        while not picture.endswith(" s\r\n"):
            picture += os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "━" in picture
    assert re.search(r"sample: 2/2 items, [^,]+, 0 s left", picture)
    assert re.search(r"sample: 2/2 items in \d+ s\r\n$", picture)


def test_durations_read_as_people_say_them() -> None:
    assert [format_duration(s) for s in (0.2, 59.4, 60, 125, 3600, 4215)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "2 min 05 s",
        "1 h 00 min",
        "1 h 10 min",
    ]
