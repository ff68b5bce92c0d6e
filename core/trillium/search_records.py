"""Rows that hold a search tree of text: steps below a prompt, each continuing an earlier one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from trillium.fields import Fields, Text
from trillium.records import Row, text_to_json


@dataclass(frozen=True)
class Step:
    """Hold one node of a search tree: text the policy wrote, or text it was given."""

    text: str
    parent: int
    is_scored: bool = True


@dataclass(frozen=True, kw_only=True)
class TreeRow(Row):
    """Hold a search tree below a prompt; a step's parent is an earlier step, or -1 for the prompt.

    `leaves` end the paths (all steps without children when the file names none) and `labels` have
    one value per leaf.
    """

    needs: ClassVar[tuple[str, ...]] = ("prompt", "steps")

    prompt: Text
    steps: tuple[Step, ...]
    leaves: tuple[int, ...]
    labels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def from_record(cls, fields: Fields) -> "TreeRow":
        """Read a search tree."""
        steps = _read_steps(fields)
        parents = {step.parent for step in steps}
        leaves = tuple(index for index in range(len(steps)) if index not in parents)
        if fields.has("leaves"):
            value = fields.record["leaves"]
            count = len(value) if isinstance(value, Sequence) else 0
            named = fields.numbers("leaves", count)
            leaves = tuple(map(int, named))
            if leaves != named or not leaves or not all(0 <= leaf < len(steps) for leaf in leaves):
                fields.complain(f'field "leaves" is {named} (needs numbers of steps); correct it')
        values = fields.mapping("labels")
        inner = Fields(values, cls.needs, fields.problems)
        return cls(
            prompt=fields.text("prompt"),
            steps=steps,
            leaves=leaves,
            labels={name: inner.numbers(name, len(leaves)) for name in values},
            id=fields.row_id(),
            columns=fields.columns({*cls.needs, "leaves", "labels"}),
            tools=fields.tools(),
            template_kwargs=fields.mapping("chat_template_kwargs"),
        )

    def _own_record(self) -> dict[str, object]:
        steps = [{"text": s.text, "parent": s.parent, "scored": s.is_scored} for s in self.steps]
        return {
            "prompt": text_to_json(self.prompt),
            "steps": steps,
            "leaves": list(self.leaves),
            "labels": {name: list(values) for name, values in self.labels.items()},
        }


def _read_steps(fields: Fields) -> tuple[Step, ...]:
    value = fields.record.get("steps")
    if value is None:
        fields.missing("steps")
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        fields.complain('field "steps" is empty or no list (needs at least one step); correct it')
        return ()
    steps = []
    for index, entry in enumerate(value):
        is_object = isinstance(entry, Mapping)
        text, parent = (entry.get("text"), entry.get("parent", -1)) if is_object else (None, None)
        scored = entry.get("scored", True) if is_object else True
        if not isinstance(text, str) or type(parent) is not int or type(scored) is not bool:
            fields.complain(
                f'field "steps[{index}]" is no step (needs text, parent and optionally scored); '
                "correct the line"
            )
        elif not text or not -1 <= parent < index:
            fields.complain(
                f'field "steps[{index}]" has text of {len(text)} characters and parent {parent} '
                "(needs text, and an earlier step or -1); correct the line"
            )
        else:
            steps.append(Step(text, parent, scored))
    return tuple(steps)
