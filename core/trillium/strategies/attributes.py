"""Attributes of a response with targets: how they are asked for, measured and graded.

Hard ones are counted, soft ones are scored by a judge; the kinds are those of UltraGen
(LongfeiYun17/UltraGen). Closeness is in [0, 1]:

    a number   max(0, 1 - |found - target| / max(target, 1))
    a fact     1 or 0 (keywords: the share that is there)
    a score    1 - |score - target| / 10, scores from 0 to 10
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from trillium.fields import Fields
from trillium.strategies.prompts import PromptRow, read_prompt

_NUMBER = r"((?<!\w)[-\u2212]?\d+(?:\.\d+)?)\b"
_ANY = re.compile(_NUMBER)
_OF_TEN = re.compile(_NUMBER + r"\s*(?:/|(?:out )?of)\s*10\b")
_SCALE = re.compile(r"\b[01]\s*(?:to|[-\u2013])\s*10\b")
_MOST = 10.0
_ENDS = re.compile(r"[.!?]+(?:\s|$)")


class Counted(BaseModel):
    """Ask for about so many words, sentences or paragraphs."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["words", "sentences", "paragraphs"]
    target: int = Field(gt=0)

    def wording(self) -> str:
        """Return the attribute as a line of the prompt."""
        return f"Write about {self.target} {self.kind}."

    def closeness(self, text: str) -> float:
        """Return how near the count is to the target."""
        found = {
            "words": lambda: len(text.split()),
            "sentences": lambda: max(len(_ENDS.findall(text)), int(bool(text.strip()))),
            "paragraphs": lambda: len([p for p in re.split(r"\n\s*\n", text) if p.strip()]),
        }[self.kind]()
        return max(0.0, 1.0 - abs(found - self.target) / self.target)


class Keyword(BaseModel):
    """Ask for a word or phrase, so many times."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["keyword"]
    text: str = Field(min_length=1)
    target: int = Field(default=1, ge=0)

    def wording(self) -> str:
        """Return the attribute as a line of the prompt."""
        if not self.target:
            return f'Do not use "{self.text}".'
        times = "" if self.target == 1 else f" {self.target} times"
        return f'Use "{self.text}"{times}.'

    def closeness(self, text: str) -> float:
        """Return how near the number of uses is to the target; once means at least once."""
        found = len(re.findall(rf"(?<!\w){re.escape(self.text)}(?!\w)", text, re.I))
        if self.target == 1:
            return float(found > 0)
        return max(0.0, 1.0 - abs(found - self.target) / max(self.target, 1))


class Start(BaseModel):
    """Ask for a first word or phrase."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["start"]
    text: str = Field(min_length=1)

    def wording(self) -> str:
        """Return the attribute as a line of the prompt."""
        return f'Start with "{self.text}".'

    def closeness(self, text: str) -> float:
        """Return 1 when the text starts so."""
        return float(text.lstrip().startswith(self.text))


class Casing(BaseModel):
    """Ask for capital or small letters only."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["casing"]
    target: Literal["upper", "lower"]

    def wording(self) -> str:
        """Return the attribute as a line of the prompt."""
        return f"Write in {'capital' if self.target == 'upper' else 'small'} letters only."

    def closeness(self, text: str) -> float:
        """Return the share of letters that are so; 0 without letters."""
        letters = [character for character in text if character.isalpha()]
        right = [c for c in letters if (c.isupper() if self.target == "upper" else c.islower())]
        return len(right) / len(letters) if letters else 0.0


class Soft(BaseModel):
    """Ask for a quality in words, which a judge scores from 0 to 10."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["soft"]
    text: str = Field(min_length=1)
    target: float = Field(default=_MOST, ge=0, le=_MOST)

    def wording(self) -> str:
        """Return the attribute as a line of the prompt."""
        if self.target == _MOST:
            return f"Be {self.text}."
        return f"Be {self.text}: {self.target:g} on a scale from 0 to 10."


Attribute = Annotated[Counted | Keyword | Start | Casing | Soft, Field(discriminator="kind")]
_LIST: TypeAdapter[list[Attribute]] = TypeAdapter(
    Annotated[list[Attribute], Field(min_length=1, max_length=50)]
)


@dataclass(frozen=True, kw_only=True)
class AttributeRow(PromptRow):
    """Hold a prompt and the attributes that a response to it should have.

    Of two attributes of one kind and text, capitals aside, the last counts.
    """

    needs: ClassVar[tuple[str, ...]] = ("prompt", "attributes")

    attributes: Mapping[str, Attribute]

    @classmethod
    def from_record(cls, fields: Fields) -> "AttributeRow":
        """Read a prompt with attributes."""
        prompt = read_prompt(fields)
        found: list[Attribute] = []
        if not fields.has("attributes"):
            fields.missing("attributes")
        else:
            try:
                found = _LIST.validate_python(fields.record["attributes"])
            except ValidationError as error:
                first = error.errors()[0]
                place = ".".join(str(part) for part in first["loc"])
                fields.complain(
                    f'field "attributes{"." if place else ""}{place}" is wrong: {first["msg"]} '
                    "(needs a list of objects with a kind: words, sentences, paragraphs, keyword, "
                    "start, casing or soft); correct the line"
                )
        return cls(prompt=prompt, attributes=_by_name(found), id=fields.row_id())

    def _own_record(self) -> dict[str, object]:
        listed = [attribute.model_dump() for attribute in self.attributes.values()]
        return {**super()._own_record(), "attributes": listed}


def name_of(attribute: Attribute) -> str:
    """Return the kind, and the text where it has one, as a name of a field."""
    text = getattr(attribute, "text", "")
    return "_".join([attribute.kind, *re.findall(r"\w+", str(text).lower())])


def _by_name(attributes: Sequence[Attribute]) -> dict[str, Attribute]:
    """Return the attributes by their names, numbered where signs alone tell texts apart."""
    named: dict[str, Attribute] = {}
    for attribute in attributes:
        name, number = name_of(attribute), 1
        while name in named and not _is_same(named[name], attribute):
            number += 1
            name = f"{name_of(attribute)}_{number}"
        named[name] = attribute
    return named


def _is_same(one: Attribute, other: Attribute) -> bool:
    texts = [str(getattr(each, "text", "")).lower() for each in (one, other)]
    return one.kind == other.kind and texts[0] == texts[1]


def ask_with_attributes(question: str, attributes: Sequence[Attribute]) -> str:
    """Return the prompt: the question, then every attribute as a line."""
    lines = "\n".join(f"- {attribute.wording()}" for attribute in attributes)
    return f"{question}\n\nYour response should follow these points:\n{lines}"


def ask_for_quality(quality: str, response: str) -> str:
    """Return the question to a judge of a soft attribute."""
    return (
        f"How {quality} is this response? Score it from 0 (not at all) to 10 (as much as can be)."
        f"\n\n[Response]\n{response}\n\nAnswer with the number alone.\n"
    )


def read_score(answer: str) -> float | None:
    """Return the one number of an answer, or the one out of ten; None unless it is in range.

    The scale itself, as in "from 0 to 10", is no number. Of several numbers none is chosen.
    """
    said = _SCALE.sub("", answer)
    found = {float(n.replace("\u2212", "-")) for n in _OF_TEN.findall(said) or _ANY.findall(said)}
    valid = [number for number in found if 0 <= number <= _MOST]
    return valid[0] if valid and len(found) == 1 else None


def soft_closeness(score: float, target: float) -> float:
    """Return how near a judge's score is to the target."""
    return 1.0 - abs(score - target) / _MOST
