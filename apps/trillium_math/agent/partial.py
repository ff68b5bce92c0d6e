"""A trajectory that is still being written: started, forked, or cut from a finished one."""

from dataclasses import dataclass, field, replace

from trillium_math.agent.cells import find_call
from trillium_math.agent.trajectory import Outcome, Trajectory, Turn
from trillium_math.problems import Problem


@dataclass
class Partial:
    """Hold what a trajectory is so far.

    `spans` are the tokens that the policy sampled, one per turn, the one being written included;
    `cells` the code of its finished calls. `is_open` says that the last turn goes on. `outcome` is
    None until the trajectory has ended.
    """

    id: str
    problem: Problem
    ids: list[int]
    turns: list[Turn]
    spans: list[tuple[int, int]] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    is_open: bool = False
    outcome: Outcome | None = None
    answer: str | None = None
    sum_logp: float | None = 0.0

    def fork(self, id: str) -> "Partial":
        """Return a copy under another id that goes its own way from here."""
        return replace(
            self,
            id=id,
            ids=list(self.ids),
            turns=list(self.turns),
            spans=list(self.spans),
            cells=list(self.cells),
        )

    @property
    def n_policy_tokens(self) -> int:
        """Count the tokens that the policy sampled."""
        return sum(end - start for start, end in self.spans)

    @property
    def n_in_turn(self) -> int:
        """Count the tokens of the turn that is being written; 0 between turns."""
        return self.spans[-1][1] - self.spans[-1][0] if self.is_open else 0


def cut(one: Trajectory, problem: Problem, n_tokens: int, text: str, *, id: str) -> Partial:
    """Return the first `n_tokens` of a trajectory as the start of another.

    The cut lies at the prompt's end or inside a turn of the policy; `text` is that turn up to the
    cut. At the end of a turn that called the tool, its output and the next header belong to the
    prefix: the tool is deterministic. The log-probability of a prefix is not known.
    """
    n_prompt = len(one.turns) - sum(turn.role == "assistant" or bool(turn.status)
                                    for turn in one.turns)  # fmt: skip
    done = [span for span in one.spans if span[1] <= n_tokens]
    following = one.spans[len(done)] if len(done) < len(one.spans) else None
    is_open = following is not None and following[0] < n_tokens
    length = n_tokens if is_open or following is None else following[0]
    turns = list(one.turns[: n_prompt + 2 * len(done)])
    cells = [find_call(turn.content) or "" for turn in turns if turn.role == "assistant"]
    spans = list(done)
    if is_open:
        assert following is not None
        spans.append((following[0], n_tokens))
        turns.append(Turn("assistant", text))
    is_whole = following is None
    return Partial(
        id=id,
        problem=problem,
        ids=list(one.token_ids[:length]),
        turns=turns,
        spans=spans,
        cells=cells[:-1] if is_whole else cells,
        is_open=is_open,
        outcome=one.outcome if is_whole else None,
        answer=one.answer if is_whole else None,
        sum_logp=one.sum_logp if is_whole else (None if spans else 0.0),
    )
