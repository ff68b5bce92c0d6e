"""Progress of long work: a bar with rate and time left on a terminal, sparse lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Protocol, TextIO


class Progress:
    """Show how far a stage is, on stderr; what an earlier run did counts as done, not as speed."""

    def __init__(
        self,
        title: str,
        *,
        n_total: int,
        n_done: int = 0,
        unit: str = "items",
        stream: TextIO | None = None,
        quiet_s: float = 30.0,
    ) -> None:
        """Describe the work; without a terminal a line appears at most every `quiet_s` seconds."""
        self._title = title
        self._unit = unit
        self.n_total = n_total
        self.n_done = n_done
        self._n_before = n_done
        self._stream = stream or sys.stderr
        self._quiet_s = quiet_s
        self._started = self._printed = time.monotonic()
        self._bar: _Bar | None = None

    def __enter__(self) -> "Progress":
        """Start the clock and, on a terminal, the bar."""
        self._started = self._printed = time.monotonic()
        if self._stream.isatty():
            self._bar = _RichBar(self._title, self.n_total, self.n_done, self._stream)
            self._bar.update(self.n_done, self.describe())
        elif self._n_before:
            self._print()
        return self

    def advance(self, n_items: int = 1) -> None:
        """Count `n_items` more as done."""
        self.n_done += n_items
        if self._bar is not None:
            self._bar.update(self.n_done, self.describe())
        elif time.monotonic() - self._printed >= self._quiet_s:
            self._print()

    def describe(self) -> str:
        """Return the one-line state: done, rate, time left."""
        elapsed = time.monotonic() - self._started
        fresh = self.n_done - self._n_before
        text = f"{self._title}: {self.n_done}/{self.n_total} {self._unit}"
        if fresh <= 0 or elapsed <= 0:
            return text
        rate = fresh / elapsed
        left = (self.n_total - self.n_done) / rate
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return f"{text}, {speed}, {format_duration(left)} left"

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bar, or print the last line."""
        if self._bar is not None:
            self._bar.close()
        elapsed = format_duration(time.monotonic() - self._started)
        print(
            f"{self._title}: {self.n_done}/{self.n_total} {self._unit} in {elapsed}",
            file=self._stream,
            flush=True,
        )

    def _print(self) -> None:
        self._printed = time.monotonic()
        print(self.describe(), file=self._stream, flush=True)


def format_duration(seconds: float) -> str:
    """Return a duration as people say it: 8 s, 2 min 05 s, 1 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class _Bar(Protocol):
    def update(self, n_done: int, text: str) -> None: ...
    def close(self) -> None: ...


class _RichBar:
    def __init__(self, title: str, n_total: int, n_done: int, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._progress = RichProgress(
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._progress.add_task(title, total=n_total, completed=n_done)
        self._progress.start()

    def update(self, n_done: int, text: str) -> None:
        self._progress.update(self._task, completed=n_done, description=text)

    def close(self) -> None:
        self._progress.stop()
