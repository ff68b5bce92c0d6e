"""How the model is asked: the styles, the worked examples, and the strings that end an answer."""

from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.files import hash_json

Style = Literal["chat", "completion"]
ProgramStyle = Literal["chat", "completion", "answer"]

FENCE_END = "\n```"
# A line that starts in the first column ends a function; these are the starts that models write.
PROGRAM_STOPS = (FENCE_END, "\ndef ", "\nclass ", "\nassert", "\nprint", "\n#", "\nif ", "\n\n\n")
# What a free answer begins like; a stop string found in it would cut every answer.
SHORTEST_ANSWER = "Here it is:\n\n```python\ndef "
TEST_STOPS = (FENCE_END, "\ndef ", "\nclass ", "\nprint", "\n#", "\n\n")


@dataclass(frozen=True)
class Shot:
    """Hold a worked example for a prompt; its task is in no data set."""

    entry_point: str
    header: str
    statement: str
    body: str
    tests: tuple[str, ...]


SHOTS = (
    Shot(
        "count_commas",
        'def count_commas(text: str) -> int:\n    """Return the number of commas in the text."""\n',
        "Return the number of commas in the text.",
        '    return text.count(",")',
        (
            'assert count_commas("a,b,c") == 2',
            'assert count_commas("") == 0',
            'assert count_commas("hello") == 0',
            'assert count_commas(",,") == 2',
        ),
    ),
    Shot(
        "absolute_sums",
        "def absolute_sums(pairs: list[tuple[int, int]]) -> list[int]:\n"
        '    """Return the absolute value of the sum of each pair."""\n',
        "Return the absolute value of the sum of each pair.",
        "    return [abs(a + b) for a, b in pairs]",
        (
            "assert absolute_sums([(1, 2), (-5, 1)]) == [3, 4]",
            "assert absolute_sums([]) == []",
            "assert absolute_sums([(-1, -1)]) == [2]",
            "assert absolute_sums([(0, 0), (2, -2)]) == [0, 0]",
        ),
    ),
)


class PromptConfig(BaseModel):
    """Choose how the model is asked; sampling, training and evaluation share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program_style: ProgramStyle = Field(
        "chat",
        description="chat (needs a template; the answer is begun), answer (needs one; the model "
        "answers freely), or completion",
    )
    test_style: Style = Field("completion", description="chat (needs a template) or completion")
    program_shots: int = Field(
        0, ge=0, le=len(SHOTS), description="worked examples before a program"
    )
    test_shots: int = Field(2, ge=0, le=len(SHOTS), description="worked examples before tests")
    repairs_signature: bool = Field(
        False,
        description="style answer: read a function of another name, or a method of class Solution",
    )

    @model_validator(mode="after")
    def _only_answers_are_repaired(self) -> Self:
        if self.repairs_signature and self.program_style != "answer":
            raise ValueError(
                f"repairs_signature = true: with program_style = {self.program_style} every "
                "program begins with the signature asked for; set program_style=answer, or remove "
                "repairs_signature"
            )
        return self

    @property
    def asked_hash(self) -> str:
        """Return the hash of what the model is shown; how its answers are read is not in it."""
        return hash_json(self.model_dump(mode="json", exclude={"repairs_signature"}))
