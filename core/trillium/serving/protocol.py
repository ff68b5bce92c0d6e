"""OpenAI's requests as this server takes them: every field is honoured or refused, none ignored.

Fields of vLLM that our own client uses are known too: `top_k`, `min_p`, `repetition_penalty`,
`return_token_ids`, `include_stop_str_in_output`. Fields that only say what happens anyway may have
that value.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from trillium.serving.rows import RefusedError

Body = TypeVar("Body", bound=BaseModel)

_MAX_CHOICES = 128


def _form(value: object) -> str:
    """Return the form of a field that is one text or a list."""
    return "#list" if isinstance(value, list) else "#text"


def _prompt_form(value: object) -> str:
    """Return the form of prompts; of a list its first entry says what all should be."""
    if not isinstance(value, list) or not value:
        return _form(value)
    if isinstance(value[0], list):
        return "#lists"
    return "#list" if isinstance(value[0], str) else "#tokens"


# Without the forms a refusal would say what is wrong about those that were not meant.
_FORMS = {"#text", "#list", "#tokens", "#lists"}
_Text = Annotated[str, Tag("#text")]
_StopString = Annotated[str, Field(min_length=1, max_length=1000)]
_Neutral = Annotated[float, Field(ge=0, le=0)]
_Unit = Annotated[float, Field(ge=1, le=1)]
_Token = Annotated[int, Field(ge=0)]


class StreamOptions(BaseModel):
    """What a stream ends with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    include_usage: bool = False


class _Request(BaseModel):
    # Strict: the text "7" is no number, and true is none either.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str
    n: int | None = Field(default=None, ge=1, le=_MAX_CHOICES)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: (
        Annotated[
            Annotated[_StopString, Tag("#text")]
            | Annotated[list[_StopString], Field(max_length=16), Tag("#list")],
            Discriminator(_form),
        ]
        | None
    ) = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    include_stop_str_in_output: bool = False
    user: str | None = None
    min_p: _Neutral | None = None
    repetition_penalty: _Unit | None = None
    presence_penalty: _Neutral | None = None
    frequency_penalty: _Neutral | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> "_Request":
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "no_stream", "stream_options: is for streams only; set stream, or leave it out"
            )
        return self

    @property
    def n_choices(self) -> int:
        """Return how many completions are asked for per prompt."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Return the stop strings as a tuple."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        """Say whether a stream shall end with the numbers of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class CompletionRequest(_Request):
    """The body of /v1/completions; several prompts may be given, as text or as tokens."""

    prompt: Annotated[
        _Text
        | Annotated[list[str], Field(min_length=1), Tag("#list")]
        | Annotated[list[_Token], Tag("#tokens")]
        | Annotated[list[Annotated[list[_Token], Field(min_length=1)]], Tag("#lists")],
        Discriminator(_prompt_form),
    ]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    logprobs: None = None
    suffix: None = None

    def prompts(self) -> list[str] | list[list[int]]:
        """Return all prompts of the request."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [[int(token) for token in self.prompt if isinstance(token, int)]]
        return self.prompt


class TextPart(BaseModel):
    """A part of a message; this server reads text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """A message of a conversation; which roles there are is the template's business."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: str = Field(min_length=1, max_length=64)
    content: Annotated[_Text | Annotated[list[TextPart], Tag("#list")], Discriminator(_form)]
    name: str | None = None

    @property
    def text(self) -> str:
        """Return the content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content)


class ChatRequest(_Request):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=4096)]
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: Literal[False] | None = None
    tools: Annotated[list[object], Field(max_length=0)] | None = None
    tool_choice: Literal["none"] | None = None


class LoadRequest(BaseModel):
    """The body of /v1/load_lora_adapter, as vLLM has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    lora_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    lora_path: str = Field(min_length=1, max_length=4096)


class UnloadRequest(BaseModel):
    """The body of /v1/unload_lora_adapter, as vLLM has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    lora_name: str = Field(min_length=1, max_length=128)
    lora_int_id: int | None = None


def parse(kind: type[Body], body: bytes) -> Body:
    """Read a body; raises RefusedError that names the first wrong field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        parts = [str(part) for part in first["loc"] if part not in _FORMS]
        reason = f"{first['msg']}"
        if first["type"] == "extra_forbidden":
            reason = "is not supported by this server; leave it out"
        place = f"{'.'.join(parts)}: " if parts else ""
        raise RefusedError(400, f"{place}{reason}", param=parts[0] if parts else None) from None
