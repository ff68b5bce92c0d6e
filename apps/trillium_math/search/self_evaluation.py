"""What the policy itself thinks of a solution so far: a question with two answers.

The judgement is the probability of one letter against the other, read off the next-token
distribution without sampling (arXiv 2405.00451, Section 2.2). A small model's judgement is weak;
the search leans on outcomes as well.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from peft import PeftModel
from trillium.fields import Message
from trillium.policies.adapters import using_adapter
from trillium.scoring.layout import choose_layout, evaluating
from trillium.scoring.scores import score
from trillium.training.steps import StepCollator
from trillium.trees import TokenPath, TokenTree

from trillium_math.agent.dialogue import Dialogue
from trillium_math.agent.partial import Partial
from trillium_math.agent.steps import strip_end

# On a processor small batches are faster; a GPU is idle between them.
_MICRO_TOKENS = {"cpu": 1024, "cuda": 16384}

_QUESTION = """Problem: {question}
{known}
Proposed solution, which may be unfinished:
{proposed}

Is everything in it right so far?
(A) incorrect
(B) correct
Answer with one letter."""


class Judge(Protocol):
    """What tells how good solutions are so far."""

    def assess(self, partials: Sequence[Partial]) -> list[float]:
        """Return the chance, from 0 to 1, that each is right so far."""
        ...


class SelfEvaluation:
    """Ask the policy that searches."""

    def __init__(
        self, model: PeftModel, adapter: str | None, dialogue: Dialogue, *, shows_answer: bool
    ) -> None:
        """Compute with `adapter` of `model`, None for the bare base."""
        self._model = model
        self._adapter = adapter
        self._dialogue = dialogue
        self._shows_answer = shows_answer
        layout = choose_layout(model, "auto").layout
        device = next(model.parameters()).device.type
        micro_tokens = _MICRO_TOKENS.get(device, _MICRO_TOKENS["cpu"])
        self._collator = StepCollator(layout, pad_id=0, micro_tokens=micro_tokens)

    @torch.no_grad()
    def assess(self, partials: Sequence[Partial]) -> list[float]:
        """Return P(B) / (P(A) + P(B)) for each; what they have in common is computed once."""
        trees = [self._ask(str(number), one) for number, one in enumerate(partials)]
        device = next(self._model.parameters()).device
        found: dict[str, float] = {}
        with evaluating(self._model), using_adapter(self._model, self._adapter):
            for rows in self._collator.batch_rows(trees):
                logps = score(self._model, rows.to(device)).logps
                chances = torch.sigmoid(logps[1::2] - logps[0::2]).tolist()
                found |= dict(zip(rows.tree_ids, chances, strict=True))
        return [found[tree.id] for tree in trees]

    def describe(self, one: Partial) -> str:
        """Return the question about a solution."""
        first = next((i for i, turn in enumerate(one.turns) if turn.role == "assistant"), None)
        proposed = [] if first is None else [turn.content.strip() for turn in one.turns[first:]]
        known = f"Right answer: {one.problem.answer}\n" if self._shows_answer else ""
        return _QUESTION.format(
            question=one.problem.question, known=known, proposed="\n".join(proposed)
        )

    def _ask(self, id: str, one: Partial) -> TokenTree:
        prompt = self._dialogue.encode_messages((Message("user", self.describe(one)),))
        paths = []
        for letter in "AB":
            ids = strip_end(self._dialogue.encode_turn(letter), self._dialogue.end_ids)
            flags = (False,) * len(prompt) + (True,) * len(ids)
            paths.append(TokenPath((*prompt, *ids), flags))
        return TokenTree.from_paths(id, paths)
