"""Roll out many trajectories at once: turns are sampled together, and calls run together.

A model that never stops, never calls the tool or never answers ends its trajectory with an outcome
that is counted; nothing it writes can end the rollout.
"""

from collections.abc import Sequence
from dataclasses import replace

from trillium.generation import Completion, Generator, SamplingConfig

from trillium_math.agent.cells import find_call
from trillium_math.agent.config import AgentConfig
from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.partial import Partial, cut
from trillium_math.agent.steps import StepUnit, has_content
from trillium_math.agent.tool import PythonTool, ToolResult
from trillium_math.agent.trajectory import Trajectory, Turn
from trillium_math.grading import Grader, extract_answer
from trillium_math.problems import Problem

# Lines without content that a step may begin with: a blank one and a fence, twice.
_MOST_BARE_LINES = 4


class Roller:
    """Let a policy work on problems; holds what all its rollouts share.

    `n_sampled` counts the tokens that were sampled so far.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        tool: PythonTool,
        grader: Grader,
        config: AgentConfig,
        *,
        policy: str = "",
    ) -> None:
        """Use an open tool and grader; `policy` names the policy in the trajectories."""
        self._dialogue = dialogue
        self._tool = tool
        self._grader = grader
        self._config = config
        self._policy = policy
        self.n_sampled = 0

    def roll_out(
        self,
        problems: Sequence[Problem],
        generator: Generator,
        sampling: SamplingConfig,
        *,
        seed: int,
    ) -> list[Trajectory]:
        """Return `sampling.n_samples` trajectories per problem, in the order of the problems."""
        live = [self.start(problem, index) for problem in problems
                for index in range(sampling.n_samples)]  # fmt: skip
        return self.complete(live, generator, sampling, seed=seed)

    def start(self, problem: Problem, index: int) -> Partial:
        """Return a trajectory of which only the prompt is there."""
        messages = self._dialogue.prompt_messages(problem.question)
        return Partial(
            # Policies that share a problem, in a mixture, must not share ids.
            id=f"{problem.id}#{self._policy[:6]}-{index}",
            problem=problem,
            ids=list(self._dialogue.encode_prompt(problem.question)),
            turns=[Turn(message.role, message.text) for message in messages],
        )

    def cut(self, one: Trajectory, problem: Problem, n_tokens: int, *, id: str) -> Partial:
        """Return the first `n_tokens` of a trajectory, to be continued; see `partial.cut`."""
        start = max((start for start, _ in one.spans if start < n_tokens), default=n_tokens)
        text = self._dialogue.decode(one.token_ids[start:n_tokens])
        return cut(one, problem, n_tokens, text, id=id)

    def complete(
        self,
        partials: Sequence[Partial],
        generator: Generator,
        sampling: SamplingConfig,
        *,
        seed: int,
    ) -> list[Trajectory]:
        """Continue trajectories to their ends, one sample each, and return them in order."""
        for turn in range(self._config.max_turns):
            waiting = [one for one in partials if one.outcome is None]
            if not waiting:
                break
            self.take_step(waiting, generator, sampling, seed=seed * 1009 + turn, unit="turn")
        return [self.finish(one) for one in partials]

    def take_step(
        self,
        partials: Sequence[Partial],
        generator: Generator,
        sampling: SamplingConfig,
        *,
        seed: int,
        unit: StepUnit,
    ) -> None:
        """Add one step to every trajectory that has not ended: a line, or the rest of its turn.

        A turn that ends with a call has its output at once. A trajectory that could exceed its
        limit of tokens ends instead.
        """
        single = sampling.model_copy(update={"n_samples": 1})
        waiting = self._within_limits(partials, sampling)
        if unit == "turn":
            self._extend(waiting, generator, single, None, seed=seed)
        else:
            line = single.model_copy(update={"stop": ("\n", *sampling.stop), "keep_stop": True})
            begun = {one.id: len(one.ids) for one in waiting}
            going = waiting
            for number in range(_MOST_BARE_LINES):
                going = self._within_limits(going, sampling)
                if not going:
                    break
                own_seed = seed * 1013 + number
                self._extend(going, generator, line, sampling.stop, seed=own_seed)
                going = [one for one in going if one.is_open and not self._says(one, begun[one.id])]
        self._call_tool([one for one in waiting if one.outcome is None and not one.is_open])

    def _says(self, one: Partial, start: int) -> bool:
        return has_content(self._dialogue.decode(one.ids[start:]))

    def _within_limits(
        self, partials: Sequence[Partial], sampling: SamplingConfig
    ) -> list[Partial]:
        """End what could grow too long, and return what goes on."""
        for one in partials:
            if one.outcome is None:
                left = sampling.max_new_tokens - one.n_in_turn
                if left <= 0:
                    one.outcome = "turn_too_long"
                elif len(one.ids) + left > self._config.max_tokens:
                    one.outcome = "token_limit"
        return [one for one in partials if one.outcome is None]

    def _extend(
        self,
        waiting: Sequence[Partial],
        generator: Generator,
        sampling: SamplingConfig,
        turn_stops: Sequence[str] | None,
        *,
        seed: int,
    ) -> None:
        """Sample once for every trajectory: whole turns, or lines that `turn_stops` may end.

        All are sampled together with the limit of the one that has most tokens left in its turn,
        and cut to their own; only those that it would lead beyond the limit of the whole have
        limits and batches of their own.
        """
        lefts = [sampling.max_new_tokens - one.n_in_turn for one in waiting]
        by_limit: dict[int, list[Partial]] = {}
        for one, left in zip(waiting, lefts, strict=True):
            fits = len(one.ids) + max(lefts) <= self._config.max_tokens
            by_limit.setdefault(max(lefts) if fits else left, []).append(one)
        for limit, group in by_limit.items():
            limited = sampling.model_copy(update={"max_new_tokens": limit})
            self._draw(group, generator, limited, turn_stops, sampling.max_new_tokens, seed=seed)

    def _draw(
        self,
        waiting: Sequence[Partial],
        generator: Generator,
        sampling: SamplingConfig,
        turn_stops: Sequence[str] | None,
        max_in_turn: int,
        *,
        seed: int,
    ) -> None:
        """Sample once for every trajectory under one limit."""
        alike: dict[tuple[int, ...], list[Partial]] = {}
        for one in waiting:
            alike.setdefault(tuple(one.ids), []).append(one)
        groups = list(alike.values())
        n_alike = len(groups[0])
        # Where all prefixes occur equally often, as at the start, each is read only once.
        if any(len(group) != n_alike for group in groups):
            groups, n_alike = [[one] for one in waiting], 1
        plan = generator.plan([group[0].ids for group in groups], n_samples=n_alike, seed=seed)
        n_taken = [0] * len(groups)
        for batch in plan:
            drawn = generator.generate_batch(batch, sampling)
            for index, completions in zip(batch.indices, drawn, strict=True):
                for completion in completions:
                    self.n_sampled += len(completion.ids)
                    one = groups[index][n_taken[index]]
                    self._add(one, self._cut(completion, max_in_turn - one.n_in_turn), turn_stops)
                    n_taken[index] += 1

    def _cut(self, completion: Completion, n_tokens: int) -> Completion:
        """Return the first tokens of a completion, without a likelihood where that loses some."""
        if len(completion.ids) <= n_tokens:
            return completion
        ids = completion.ids[:n_tokens]
        return replace(
            completion, ids=ids, text=self._dialogue.decode(ids), finish="length", logp=None
        )

    def _add(self, one: Partial, completion: Completion, turn_stops: Sequence[str] | None) -> None:
        """Append what was sampled and see whether it ends a line, the turn or everything."""
        text = self._append(one, completion)
        is_stopped = completion.finish == "stop"
        is_line = turn_stops is not None and completion.text.endswith("\n")
        is_ended = completion.ids[-1:] and completion.ids[-1] in self._dialogue.end_ids
        has_stop = any(stop in text for stop in turn_stops or ())
        one.is_open = is_stopped and is_line and not is_ended and not has_stop
        one.answer = extract_answer(text, self._config.answer_sources) or None
        if one.answer is not None:
            one.outcome, one.is_open = "answered", False
        elif not is_stopped:
            one.outcome = "turn_too_long"
        elif not one.is_open and find_call(text) is None:
            one.outcome = "no_answer"

    def _append(self, one: Partial, completion: Completion) -> str:
        """Append tokens to the open turn, or as a new one; returns the text of the turn so far."""
        start = len(one.ids)
        one.ids.extend(completion.ids)
        text = completion.text
        if one.is_open:
            one.turns.pop()
            start = one.spans.pop()[0]
            # The text of a line ends with it, its last token may hold the indent of the next.
            text = self._dialogue.decode(one.ids[start:])
        one.spans.append((start, len(one.ids)))
        one.turns.append(Turn("assistant", text))
        known = one.sum_logp is not None and completion.logp is not None
        one.sum_logp = (one.sum_logp or 0.0) + (completion.logp or 0.0) if known else None
        return text

    def _call_tool(self, calling: Sequence[Partial]) -> None:
        """Run the code of every trajectory that goes on and append what it printed."""
        for one in calling:
            if len(one.spans) >= self._config.max_turns:
                one.outcome = "turn_limit"
        going = [one for one in calling if one.outcome is None]
        for one in going:
            one.cells.append(find_call(one.turns[-1].content) or "")
        results = self._tool.run([one.cells for one in going])
        for one, result in zip(going, results, strict=True):
            self._add_output(one, result)

    def _add_output(self, one: Partial, result: ToolResult) -> None:
        message = self._dialogue.tool_message(result.output)
        start, end = one.spans[-1]
        one.ids.extend(self._dialogue.encode_between(one.ids[start:end], message))
        one.turns.append(Turn(message.role, message.text, result.status))
        if result.status == "lost":
            one.outcome = "environment_fault"

    def finish(self, one: Partial) -> Trajectory:
        """Return a trajectory as it stands, graded."""
        outcome = one.outcome or "turn_limit"
        # Tool output that no turn followed was read by nobody.
        length = one.spans[-1][1] if one.spans else len(one.ids)
        reward: float | None = 0.0
        if outcome == "environment_fault":
            reward = None
        elif one.answer is not None:
            reward = float(self._grader.grade(one.problem.answer, one.answer).correct)
        return Trajectory(
            id=one.id,
            problem_id=one.problem.id,
            gold=one.problem.answer,
            turns=tuple(one.turns),
            token_ids=tuple(one.ids[:length]),
            spans=tuple(one.spans),
            outcome=outcome,
            answer=one.answer,
            reward=reward,
            policy=self._policy,
            sum_logp=one.sum_logp if one.spans else None,
        )
