"""Answers of a chat server: messages travel as text, so the model may have any tokenizer.

For judges and inventors. What a policy learns from comes from `server.ServerGenerator`, which keeps
token ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from trillium.errors import BackendError
from trillium.generation.config import ServerConfig
from trillium.generation.connection import ServerConnection
from trillium.generation.interface import Finish, SamplingConfig


class ChatServer:
    """Ask a server one question at a time, each in a conversation of its own."""

    def __init__(self, config: ServerConfig) -> None:
        """Ask the server of `config`; nothing is sent yet. Raises ConfigError without its key."""
        self._connection = ServerConnection(config)

    def answer(self, questions: Sequence[str], sampling: SamplingConfig, *, seed: int) -> list[str]:
        """Return one answer per question; raises BackendError when the server does not answer."""
        return [
            self._ask(question, sampling, seed=seed + number)
            for number, question in enumerate(questions)
        ]

    def draw(self, question: str, sampling: SamplingConfig, *, seed: int) -> list["ChatAnswer"]:
        """Return `sampling.n_samples` answers to one question, each independent of the others.

        Many servers give one answer however many are asked for, so they are asked for the rest.
        """
        drawn: list[ChatAnswer] = []
        while len(drawn) < sampling.n_samples:
            n_missing = sampling.n_samples - len(drawn)
            drawn += self._post(question, sampling, seed=seed + len(drawn), n=n_missing)[:n_missing]
        return drawn

    def _ask(self, question: str, sampling: SamplingConfig, *, seed: int) -> str:
        return self._post(question, sampling, seed=seed, n=1)[0].text

    def _post(
        self, question: str, sampling: SamplingConfig, *, seed: int, n: int
    ) -> list["ChatAnswer"]:
        config = self._connection.config
        request: dict[str, object] = {
            "model": config.model,
            "messages": [{"role": "user", "content": question}],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_new_tokens,
            "seed": seed % 2**31,
        }
        if n > 1:
            request["n"] = n
        if sampling.top_k:
            request["top_k"] = sampling.top_k
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        choices = self._connection.post("chat/completions", request, _Answer).choices
        if not choices:
            raise BackendError(
                f"{config.url}: answered no choice (one was asked for); check the server"
            )
        return [
            ChatAnswer(
                choice.message.content or "",
                "length" if choice.finish_reason == "length" else "stop",
            )
            for choice in choices
        ]


@dataclass(frozen=True)
class ChatAnswer:
    """Hold what a server said, and whether it ended by itself or was cut off."""

    text: str
    finish: Finish


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Answer(BaseModel):
    choices: list[_Choice]
