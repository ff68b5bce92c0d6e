"""math-verify as a second opinion, in a process of its own that is killed when it hangs.

Its own time limits are signals and work in a main thread only; here it runs without them. Needs the
extra `math-extras`.
"""

from importlib.util import find_spec
from types import TracebackType

from trillium.errors import ConfigError

from trillium_math.grading.grader import Kind
from trillium_math.grading.symbolic import LineWorker

_MAX_CHARS = 20_000


class SecondOpinion:
    """Ask math-verify; None where it gave no answer in time, or the text is too long for it."""

    def __init__(self, *, timeout_s: float = 5.0) -> None:
        """Prepare; raises ConfigError when math-verify is not installed."""
        if find_spec("math_verify") is None:
            raise ConfigError(
                "grading: math-verify is not installed (a second opinion was asked for); "
                "pip install 'trillium[math-extras]'"
            )
        self._worker = LineWorker("trillium_math.grading.second_opinion_worker")
        self._timeout_s = timeout_s

    def grade(self, gold: str, prediction: str, kind: Kind) -> bool | None:
        """Return its verdict."""
        if len(gold) + len(prediction) > _MAX_CHARS:
            return None
        answer = self._worker.ask([gold, prediction, kind], self._timeout_s)
        return answer if isinstance(answer, bool) else None

    def __enter__(self) -> "SecondOpinion":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._worker.close()
