"""Rows of every kind to rendered paths: plain strings directly, conversations by their template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

from transformers import PreTrainedTokenizerBase

from trillium.record_texts import Reply
from trillium.records import Row, TrajectoryRow
from trillium.rendering import ChatTemplate, Conversation, Rendered
from trillium.search_records import Step, TreeRow
from trillium.tokenize_config import ScoredTurns
from trillium.turn_spans import without_stop


@dataclass(frozen=True)
class Sample:
    """Hold a row as the replies that make its paths, and a label value per path.

    A search row has no replies: its steps make the paths. The steps of a trajectory are its scored
    turns. `scores_prompt`: the prompt counts too, as a step before the reply.
    """

    row: Row
    replies: Sequence[Reply]
    labels: Mapping[str, tuple[float, ...]]
    scores_prompt: bool = False

    @property
    def has_steps(self) -> bool:
        """Say whether the paths are cut into steps."""
        return self.scores_prompt or isinstance(self.row, TreeRow | TrajectoryRow)


class RowRenderer:
    """Render rows of any kind; the chat template is looked at only when a row needs it."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, turns: ScoredTurns, add_eos: bool
    ) -> None:
        """Keep what decides about spans."""
        self._tokenizer = tokenizer
        self._turns = turns
        self._add_eos = add_eos
        self._template: ChatTemplate | None = None

    def render(self, sample: Sample) -> list[Rendered]:
        """Render each path of a row; raises Unusable or DataError when that cannot be done."""
        if isinstance(sample.row, TreeRow):
            return self._render_search(sample.row)
        rendered = [self._render_reply(sample.row, reply) for reply in sample.replies]
        return [replace(each, scores_prompt=sample.scores_prompt) for each in rendered]

    def _chat(self) -> ChatTemplate:
        self._template = self._template or ChatTemplate(self._tokenizer)
        return self._template

    def _eos(self) -> str:
        return str(self._tokenizer.eos_token or "")

    def _render_reply(self, row: Row, reply: Reply) -> Rendered:
        prompt, completion = reply.prompt, reply.completion
        if isinstance(prompt, str):
            assert isinstance(completion, str)
            said = without_stop(completion, self._eos())
            text = prompt + said + (self._eos() if self._add_eos else "")
            return Rendered(text, ((len(prompt), len(text)),), is_plain=True)
        turns = () if isinstance(completion, str) else completion
        talk = Conversation(prompt, turns, row.tools, row.template_kwargs)
        if isinstance(completion, str):
            return self._chat().render_continued(talk, completion, add_eos=self._add_eos)
        return self._chat().render(talk, self._turns, add_eos=self._add_eos)

    def _render_search(self, row: TreeRow) -> list[Rendered]:
        is_plain = isinstance(row.prompt, str)
        if isinstance(row.prompt, str):
            context, stop = row.prompt, self._eos()
        else:
            context = self._chat().render_prompt(
                row.prompt, tools=row.tools, template_kwargs=row.template_kwargs
            )
            stop = self._chat().stop_text
        rendered = []
        for leaf in row.leaves:
            text, spans, steps = context, [], _lineage(row, leaf)
            _check_stops(steps, stop)
            for step in steps:
                spans += [(len(text), len(text) + len(step.text))] if step.is_scored else []
                text += step.text
            whole = _ended(text, stop if self._add_eos else "")
            if spans and spans[-1][1] == len(text):
                spans[-1] = (spans[-1][0], len(whole))
            rendered.append(Rendered(whole, tuple(spans), is_plain=is_plain))
        return rendered


def _ended(text: str, stop: str) -> str:
    """Add the stop token to a text that does not end with it; nothing follows it then."""
    bare = text.rstrip()
    return bare if stop and bare.endswith(stop) else text + stop


def _check_stops(steps: Sequence[Step], stop: str) -> None:
    """Raise Unusable where the policy wrote on behind its stop token; given text may follow it."""
    for is_scored, turn in groupby(steps, key=attrgetter("is_scored")):
        if is_scored:
            without_stop("".join(step.text for step in turn), stop)


def _lineage(row: TreeRow, leaf: int) -> list[Step]:
    steps: list[Step] = []
    while leaf >= 0:
        steps.append(row.steps[leaf])
        leaf = row.steps[leaf].parent
    return steps[::-1]
