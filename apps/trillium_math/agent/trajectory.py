"""One trajectory: messages for people, token ids as sampled for training, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from trillium.trees import TokenPath, TokenTree

Outcome = Literal[
    "answered", "no_answer", "turn_limit", "turn_too_long", "token_limit", "environment_fault"
]
OUTCOMES: tuple[Outcome, ...] = (
    "answered",
    "no_answer",
    "turn_limit",
    "turn_too_long",
    "token_limit",
    "environment_fault",
)
"""How a trajectory ends.

answered: the last turn holds an answer. no_answer: it holds neither answer nor code. turn_limit:
the last turn that was allowed still called the tool. turn_too_long: a turn reached its limit of
tokens. token_limit: the next turn could have exceeded the limit of the whole. environment_fault:
the sandbox failed, which says nothing about the policy.
"""


@dataclass(frozen=True)
class Turn:
    """Hold one message; `status` is how a tool call ended, and empty for other messages."""

    role: str
    content: str
    status: str = ""


@dataclass(frozen=True)
class Trajectory:
    """Hold one rollout. `spans` are the token ranges that the policy sampled, one per turn.

    `reward` is 1 for the right answer, 0 for a wrong one or none, None after an environment fault.
    `sum_logp` is in nats under the sampling policy at temperature 1, None when unknown.
    """

    id: str
    problem_id: str
    gold: str
    turns: tuple[Turn, ...]
    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    outcome: Outcome
    answer: str | None
    reward: float | None
    policy: str = ""
    sum_logp: float | None = None

    @property
    def scored(self) -> tuple[bool, ...]:
        """Return the loss mask: true for what the policy sampled, from the spans alone."""
        return mask_of(self.spans, len(self.token_ids))

    @property
    def path(self) -> TokenPath:
        """Return the trajectory as a token path, nothing tokenised again."""
        return TokenPath(self.token_ids, self.scored)

    @property
    def tree(self) -> TokenTree:
        """Return the trajectory as a tree of one path, labelled with its reward."""
        labels = {} if self.reward is None else {"reward": (self.reward,)}
        return TokenTree.from_paths(self.id, (self.path,), labels)

    @property
    def tool_statuses(self) -> tuple[str, ...]:
        """Return how each tool call ended."""
        return tuple(turn.status for turn in self.turns if turn.status)

    @property
    def n_policy_turns(self) -> int:
        """Count the turns of the policy."""
        return len(self.spans)

    @property
    def is_right(self) -> bool:
        """Say whether the answer is right."""
        return self.reward == 1.0


def mask_of(spans: Sequence[tuple[int, int]], length: int) -> tuple[bool, ...]:
    """Return a mask of `length` that is true inside the spans."""
    mask = [False] * length
    for start, end in spans:
        mask[start:end] = [True] * (end - start)
    return tuple(mask)
