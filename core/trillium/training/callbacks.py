"""What watches a run: a progress bar, a warning on saturation, a stop on the margin.

None of them holds state that a resumed run would miss: each reads the record of finished steps.
"""

import logging
from collections.abc import Mapping, Sequence

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trillium.progress import Progress

log = logging.getLogger(__name__)

STOP_WINDOW = 8
"""Steps whose margins are averaged before a run is stopped."""

# log sigmoid(20) is -2e-9: a pair beyond this margin no longer moves the policy.
_SATURATED = 20.0


def mean_recent_margin(history: Sequence[Mapping[str, float]]) -> float | None:
    """Return the mean log-ratio margin of the last steps in nats, or None when they are too few."""
    margins = [row["margin_nats"] for row in history if "margin_nats" in row][-STOP_WINDOW:]
    return sum(margins) / len(margins) if len(margins) == STOP_WINDOW else None


class StopOnMargin(TrainerCallback):
    """End training when pairs are told apart so well that more steps would only over-optimise."""

    def __init__(self, stop_margin: float) -> None:
        """Stop once the mean margin of the last steps exceeds `stop_margin` nats."""
        self._stop_margin = stop_margin

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        """Look at the margins after each step."""
        margin = mean_recent_margin(state.log_history)
        if margin is not None and margin > self._stop_margin:
            control.should_training_stop = True
            log.info("step %d: margin %.1f nats; stopping", state.global_step, margin)


class WarnOnSaturation(TrainerCallback):
    """Say once that the loss no longer has a gradient to speak of."""

    def __init__(self) -> None:
        """Start silent."""
        self._has_warned = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: object,
    ) -> None:
        """Look at the mean reward margin of each step."""
        margin = (logs or {}).get("rewards/margins", 0.0)
        if margin > _SATURATED and not self._has_warned:
            self._has_warned = True
            log.warning(
                "step %d: the mean reward margin is %.0f (beyond %.0f a pair has no gradient left); "
                "lower train.learning_rate or objective.beta, or set train.stop_margin",
                state.global_step,
                margin,
                _SATURATED,
            )


class ShowProgress(TrainerCallback):
    """Show optimizer steps, their rate and the time left."""

    def __init__(self, title: str) -> None:
        """Name the work."""
        self._title = title
        self._progress: Progress | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Open the bar where the last checkpoint left off."""
        if state.is_world_process_zero:
            self._progress = Progress(
                self._title, n_total=state.max_steps, n_done=state.global_step, unit="steps"
            )
            self._progress.__enter__()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        """Advance by one step."""
        if self._progress is not None:
            self._progress.advance()

    def close(self) -> None:
        """Close the bar, also after a failure."""
        if self._progress is not None:
            self._progress.__exit__(None, None, None)
            self._progress = None
