"""Who is asked: a chat server, or a model in this process; the same questions, the same answers.

http://127.0.0.1:8000/v1#NAME       the model NAME of a server
smollm2-135m-instruct, a folder     a model loaded here, its chat template around the question
"""

import os
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from trillium.errors import ConfigError
from trillium.fields import Text
from trillium.generation.chat import ChatServer
from trillium.generation.config import ServerConfig
from trillium.generation.interface import SamplingConfig
from trillium.policies.config import PolicyConfig

# Where a server wants a key, it is in this variable; never in a file or on a command line.
KEY_VARIABLE = "TRILLIUM_DATA_API_KEY"


@runtime_checkable
class Asker(Protocol):
    """Anything that answers questions, each in a conversation of its own."""

    def answer(self, questions: Sequence[str], sampling: SamplingConfig, *, seed: int) -> list[str]:
        """Return one answer per question."""
        ...


class LocalChat:
    """Ask a model in this process; it is loaded with the first question."""

    def __init__(self, base: str, *, max_rows: int = 16) -> None:
        """Name the model: an asset, a folder, or a hub id."""
        from trillium.policies.run_policy import RunPolicy

        self._policy = RunPolicy(PolicyConfig(base=base), seed=0)
        self._max_rows = max_rows

    def answer(self, questions: Sequence[str], sampling: SamplingConfig, *, seed: int) -> list[str]:
        """Return one answer per question, sampled at the configuration's temperature."""
        if not questions:
            return []
        from trillium.generation.in_process import TransformersGenerator

        loaded = self._policy.loaded
        generator = TransformersGenerator(loaded.model, loaded.tokenizer, max_rows=self._max_rows)
        completions = generator.generate(
            [self._render(question) for question in questions],
            sampling.model_copy(update={"n_samples": 1}),
            seed=seed,
        )
        return [group[0].text for group in completions]

    def _render(self, question: str) -> list[int]:
        tokenizer = self._policy.tokenizer
        if tokenizer.chat_template is None:
            return list(tokenizer.encode(question))
        turn = [{"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        return list(tokenizer.encode(str(text), add_special_tokens=False))


def open_asker(name: str) -> Asker:
    """Return who `name` says: URL#MODEL, or a model of this process.

    Raises ConfigError for a URL without a model, or one that is no address.
    """
    if not name.startswith(("http://", "https://")):
        return LocalChat(name)
    url, _, model = name.partition("#")
    if not model:
        raise ConfigError(f"{name}: names no model (needs URL#MODEL); add it behind a #")
    variable = KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else ""
    try:
        config = ServerConfig(url=url, model=model, api_key_variable=variable)
    except ValidationError as error:
        raise ConfigError(
            f"{name}: is no URL#MODEL ({error.errors()[0]['msg']}); correct the address"
        ) from error
    return ChatServer(config)


def as_text(text: Text) -> str:
    """Return a prompt or reply as one text, a conversation with its roles named."""
    if isinstance(text, str):
        return text
    return "\n".join(f"{message.role}: {message.text}" for message in text)
