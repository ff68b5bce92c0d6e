"""What is asked of the engine, and what it says while it answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from trillium.generation.interface import SamplingConfig
from trillium.serving.text_stream import TextStream

Finish = Literal["stop", "length", "error"]


class RefusedError(Exception):
    """An answer other than 200: its status and a sentence for the caller."""

    def __init__(self, status: int, sentence: str, *, param: str | None = None) -> None:
        """Blame the field `param` of the request, where one is to blame."""
        super().__init__(sentence)
        self.status = status
        self.param = param


@dataclass(frozen=True)
class Piece:
    """Hold what one step added to a completion; the last piece has a `finish`."""

    text: str
    ids: tuple[int, ...] = ()
    finish: Finish | None = None


@dataclass(eq=False)
class Row:
    """Hold one completion under way; `key` names its adapter inside the model, None the base.

    `post` is called from the engine's thread. Setting `is_cancelled` ends the row at the next step.
    """

    key: str | None
    prompt: tuple[int, ...]
    sampling: SamplingConfig
    noise: torch.Generator
    text: TextStream
    post: Callable[[Piece], None]
    is_cancelled: bool = False
    is_finished: bool = False
    n_sampled: int = field(default=0)

    def take(self, token: int, end_ids: frozenset[int]) -> None:
        """Add a sampled token, and post what it makes certain."""
        self.n_sampled += 1
        if token in end_ids:
            self.text.ids.append(token)
            self._end("stop", (token,), "")
            return
        text = self.text.push(token)
        if self.text.is_stopped:
            self._end("stop", (token,), text)
        elif self.n_sampled >= self.sampling.max_new_tokens:
            self._end("length", (token,), text)
        else:
            self.post(Piece(text, (token,)))

    def fail(self) -> None:
        """Say that the completion cannot go on."""
        self.is_finished = True
        self.post(Piece("", finish="error"))

    def _end(self, finish: Finish, ids: tuple[int, ...], text: str) -> None:
        self.is_finished = True
        text += self.text.finish()
        if self.text.is_stopped:
            finish = "stop"
        self.post(Piece(text, ids, finish))


def decoder(tokenizer: object) -> Callable[[Sequence[int]], str]:
    """Return the function that turns ids of `tokenizer` into text without special tokens."""
    decode = getattr(tokenizer, "decode")  # noqa: B009

    def text_of(ids: Sequence[int]) -> str:
        return str(decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    return text_of
