"""Prompts to answer, as they stand in a file, and the pairs that answers to them become."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from trillium.fields import Fields, Message, Text
from trillium.records import PairRow, Row, text_to_json
from trillium.strategies.asking import as_text


@dataclass(frozen=True, kw_only=True)
class PromptRow(Row):
    """Hold a prompt: a string, or a conversation that ends with the user's turn."""

    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    prompt: Text

    @classmethod
    def from_record(cls, fields: Fields) -> "PromptRow":
        """Read a prompt."""
        return cls(prompt=read_prompt(fields), id=fields.row_id())

    def _own_record(self) -> dict[str, object]:
        return {"prompt": text_to_json(self.prompt)}


def read_prompt(fields: Fields) -> Text:
    """Read the prompt of a record; an empty one is noted as a problem."""
    prompt = fields.text("prompt")
    if not fields.problems and not as_question(prompt).strip():
        fields.complain('field "prompt" is empty (needs a question or a task); write one')
    return prompt


def as_question(prompt: Text) -> str:
    """Return a prompt as the one turn that a model is asked."""
    if not isinstance(prompt, str) and len(prompt) == 1:
        return prompt[0].text
    return as_text(prompt)


def make_pair(
    id: str, question: str, chosen: str, rejected: str, labels: Mapping[str, tuple[float, float]]
) -> PairRow:
    """Return two answers as a conversation each, as the model was asked and will be served."""
    return PairRow(
        id=id,
        prompt=(Message("user", question),),
        chosen=(Message("assistant", chosen),),
        rejected=(Message("assistant", rejected),),
        labels=labels,
    )
