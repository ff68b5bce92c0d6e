"""Locate errors by a judge: a model that reads the numbered steps and labels them.

The first step that is not called correct is the error, and neutral counts as an error
(arXiv 2406.18629, Section 3.2). The judge is a chat server, or the policy itself. An answer that
labels nothing locates nothing, and is counted.
"""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from trillium.fields import Message
from trillium.generation import SamplingConfig
from trillium.generation.chat import ChatServer
from trillium.generation.config import ServerConfig

from trillium_math.localisation.mistake import Asks, Located, Mistake, Toolbox

_LABEL = re.compile(r"step\s*(\d+)\W+(?:is\s+)?(correct|neutral|incorrect|wrong)\b", re.IGNORECASE)

_QUESTION = """Problem: {question}

Reference solution:
{reference}
Right answer: {answer}

A candidate solved it in numbered steps, and its answer is wrong.

{steps}

Judge the steps in order. For each write one line "Step N: correct", "Step N: neutral" or
"Step N: incorrect", with a short reason after it, and stop at the first incorrect one."""


class JudgeLocaliser(BaseModel):
    """Ask a judge which step is the first wrong one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Literal["judge"] = "judge"
    server: ServerConfig | None = Field(
        None, description="OpenAI-compatible chat server; null = the policy judges itself"
    )
    max_new_tokens: int = Field(400, gt=0, description="tokens of one judgement")

    def open(self, toolbox: Toolbox) -> "Judge":
        """Return the localiser at work; raises ConfigError for a server without its key."""
        return Judge(self._asks(toolbox), toolbox)

    def _asks(self, toolbox: Toolbox) -> Asks:
        sampling = SamplingConfig(temperature=0, max_new_tokens=self.max_new_tokens)
        if self.server is not None:
            server = ChatServer(self.server)
            return lambda questions, seed: server.answer(questions, sampling, seed=seed)

        def ask_policy(questions: Sequence[str], seed: int) -> list[str]:
            prompts = [
                toolbox.dialogue.encode_messages((Message("user", text),)) for text in questions
            ]
            plan = toolbox.generator.plan(prompts, n_samples=1, seed=seed)
            answers = [""] * len(prompts)
            for batch in plan:
                drawn = toolbox.generator.generate_batch(batch, sampling)
                for index, (completion,) in zip(batch.indices, drawn, strict=True):
                    answers[index] = completion.text
                    toolbox.roller.n_sampled += len(completion.ids)
            return answers

        return ask_policy


class Judge:
    """A judge at work."""

    def __init__(self, asks: Asks, toolbox: Toolbox) -> None:
        """Send questions through `asks`."""
        self._asks = asks
        self._toolbox = toolbox

    def locate(self, mistakes: Sequence[Mistake], *, seed: int) -> list[Located]:
        """Return the first step that the judge does not call correct."""
        questions = [self.describe(one) for one in mistakes]
        answers = self._asks(questions, seed) if questions else []
        return [
            read_judgement(answer, len(one.steps))
            for one, answer in zip(mistakes, answers, strict=True)
        ]

    def describe(self, one: Mistake) -> str:
        """Return the question about one trajectory, tool output in its place between steps."""
        problem, decode = one.problem, self._toolbox.dialogue.decode
        lines, end = [], one.steps[0][0]
        for number, (start, stop) in enumerate(one.steps, start=1):
            between = decode(one.trajectory.token_ids[end:start]).strip()
            if between:
                lines.append(f"(the tool: {between})")
            text = decode(one.trajectory.token_ids[start:stop]).strip("\n")
            lines.append(f"Step {number}: {text}")
            end = stop
        return _QUESTION.format(
            question=problem.question,
            reference=problem.reasoning or problem.solution or "(none)",
            answer=problem.answer,
            steps="\n".join(lines),
        )


def read_judgement(answer: str, n_steps: int) -> Located:
    """Return the first step that is not called correct.

    Labels must begin at step 1 and go on without a gap; what follows a gap, or a step that is not
    there, is not read. All steps correct, or no label at all, locates nothing.
    """
    expected = 1
    for match in _LABEL.finditer(answer):
        number, label = int(match[1]), match[2].lower()
        if number != expected or number > n_steps:
            break
        if label != "correct":
            return Located(number - 1, f"judged {label}")
        expected += 1
    if expected == 1:
        return Located(None, "judgement unreadable")
    return Located(None, "judged right" if expected > n_steps else "judgement incomplete")
