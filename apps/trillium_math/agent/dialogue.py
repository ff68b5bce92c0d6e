"""The fixed tokens of a dialogue: the prompt, and what stands between two turns of the policy.

Turns of the policy are never tokenised here; their ids stay as they were sampled. What comes
between them (end of turn, tool output, next header) is rendered by the chat template, tokenised
alone and spliced in.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from trillium.errors import ConfigError, DataError
from trillium.fields import Message

from trillium_math.agent.config import AgentConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_PROBE = "trilliumprobe"


@cache
def _say_once(text: str) -> None:
    log.warning(text)


class Dialogue:
    """Render the parts of a trajectory that the policy does not write."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", config: AgentConfig) -> None:
        """Find out whether the template knows a tool's turn.

        Raises ConfigError when `tool_role` asks for one and the template has none, DataError when
        there is no template.
        """
        from trillium.rendering import ChatTemplate

        self._tokenizer = tokenizer
        self._config = config
        self._template = ChatTemplate(tokenizer)
        added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        special = {*map(str, tokenizer.all_special_tokens), *added}
        self._special = sorted(special, key=lambda token: (-len(token), token))
        stop = self._template.stop_text
        self._stop_ids = tuple(self._encode(stop)) if stop else ()
        self.tool_role = self._choose_role()

    def prompt_messages(self, question: str) -> tuple[Message, ...]:
        """Return the messages that a trajectory begins with."""
        asked = Message("user", self._config.instruction.format(question=question))
        system = self._config.system
        return (Message("system", system), asked) if system else (asked,)

    def tool_message(self, output: str) -> Message:
        """Return tool output as a message, without anything that reads as a special token."""
        for token in self._special:
            output = output.replace(token, f"{token[0]} {token[1:]}")
        return Message(self.tool_role, f"```output\n{output}\n```")

    def encode_prompt(self, question: str) -> tuple[int, ...]:
        """Return the tokens before the first turn of the policy."""
        return self.encode_messages(self.prompt_messages(question))

    def encode_messages(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Return the tokens of messages and the header of the turn that answers them."""
        text = self._template.render_prompt(tuple(messages))
        ids = self._encode(text)
        bos = self._tokenizer.bos_token_id
        adds_bos = bos is not None and bos in self._tokenizer("").input_ids
        return tuple(ids if not adds_bos or ids[:1] == [bos] else [bos, *ids])

    def encode_between(self, turn_ids: Sequence[int], tool: Message) -> tuple[int, ...]:
        """Return the tokens from the end of a sampled turn to the start of the next.

        The end-of-turn token is among them only when the policy did not sample it.
        """
        probed = (Message("user", "?"), Message("assistant", _PROBE), tool)
        between = self._template.render_prompt(probed).partition(_PROBE)[2]
        ids = self._encode(between)
        is_ended = (
            bool(self._stop_ids) and tuple(turn_ids[-len(self._stop_ids) :]) == self._stop_ids
        )
        if is_ended and tuple(ids[: len(self._stop_ids)]) == self._stop_ids:
            ids = ids[len(self._stop_ids) :]
        return tuple(ids)

    @property
    def end_ids(self) -> frozenset[int]:
        """Return the tokens that may end a turn or a text: all special ones."""
        return frozenset(self._tokenizer.all_special_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Return sampled tokens as text, without special tokens."""
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text)

    def encode_turn(self, text: str) -> tuple[int, ...]:
        """Tokenise a turn that a person or a generator wrote, with its end of turn."""
        return (*self._encode(text), *self._stop_ids)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _choose_role(self) -> str:
        wanted = self._config.tool_role
        if wanted == "user":
            return "user"
        has_role = "tool" in str(self._tokenizer.chat_template) and self._renders_tool()
        if has_role:
            return "tool"
        if wanted == "tool":
            raise ConfigError(
                "agent.tool_role=tool: the chat template has no turn for a tool (it ignores or "
                "refuses the role); set agent.tool_role=user"
            )
        _say_once("the chat template has no turn for a tool; its output goes as a user's turn")
        return "user"

    def _renders_tool(self) -> bool:
        probed = (
            Message("user", "?"),
            Message("assistant", "!"),
            Message("tool", _PROBE),
        )
        try:
            return _PROBE in self._template.render_prompt(probed)
        except DataError:
            return False
