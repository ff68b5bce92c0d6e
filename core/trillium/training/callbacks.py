"""What watches a run: a progress bar, a warning on saturation, a stop on the margin.

None of them holds state that a resumed run would miss: each reads the record of finished steps.
"""

import logging
from collections.abc import Mapping, Sequence

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trillium.objectives.configs import ObjectiveConfig
from trillium.progress import Progress
from trillium.training.fit import has_logratio_margin

log = logging.getLogger(__name__)

STOP_WINDOW = 8
"""Steps whose margins are averaged before a run is stopped."""

# log sigmoid(20) is -2e-9: a pair beyond this margin no longer moves the policy.
_SATURATED = 20.0


def is_past_margin(history: Sequence[Mapping[str, float]], stop_margin: float) -> bool:
    """Tell whether the mean log-ratio margin of the last steps, in nats, exceeds `stop_margin`."""
    margins = [row["margin_nats"] for row in history if "margin_nats" in row][-STOP_WINDOW:]
    return len(margins) == STOP_WINDOW and sum(margins) / STOP_WINDOW > stop_margin


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
        if is_past_margin(state.log_history, self._stop_margin):
            control.should_training_stop = control.should_save = True


class WarnOnSaturation(TrainerCallback):
    """Say once that a loss that saturates no longer has a gradient to speak of."""

    def __init__(self, objective: ObjectiveConfig) -> None:
        """Start silent, knowing what the objective could be given instead."""
        betas = [name for name in type(objective).model_fields if name.startswith("beta")]
        lower = ["train.learning_rate", *(f"objective.{name}" for name in betas)]
        self._remedy = f"lower {' or '.join(lower)}"
        if has_logratio_margin(objective):
            self._remedy += ", or set train.stop_margin"
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
                "step %d: the mean reward margin is %.0f (beyond %.0f pairs have no gradient); %s",
                state.global_step,
                margin,
                _SATURATED,
                self._remedy,
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
