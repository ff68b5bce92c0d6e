"""Chat templates: rows to text, and the character spans of that text which the policy wrote.

The only place that knows templates. A conversation is rendered once as a whole and once up to each
scored turn, the way a server would render it to ask for that turn; the difference is what the
policy writes. `{% generation %}` marks are not needed. Tokens are the business of `tokenize`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from trillium.errors import DataError
from trillium.fields import Message
from trillium.tokenize_config import ScoredTurns
from trillium.turn_spans import Turn, Unusable, check_fields, score_turn, without_stop

_PROBE = "trilliumprobe"
_TOOL_OPENER = re.compile(r"\s*<[^<>]*tool_?(response|output|result)[^<>]*>$")


@dataclass(frozen=True)
class Rendered:
    """Hold one path as text; `spans` are the character ranges the policy wrote, in order.

    `scores_prompt`: what stands before the first span counts too, as a step of its own.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    n_violations: int = 0
    is_plain: bool = False
    scores_prompt: bool = False


@dataclass(frozen=True)
class Conversation:
    """Hold a prompt and a completion in messages, with what their template needs besides."""

    prompt: tuple[Message, ...]
    completion: tuple[Message, ...]
    tools: tuple[Mapping[str, object], ...] = ()
    template_kwargs: Mapping[str, object] | None = None


class ChatTemplate:
    """Render conversations with a tokenizer's template and find the policy's turns in the text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Find out how the template ends an assistant turn; raises DataError when there is none."""
        if not tokenizer.chat_template:
            raise DataError(
                f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__}: has no chat "
                "template, but the rows are conversations; set chat_template on the tokenizer or "
                "give the rows as plain strings"
            )
        self._tokenizer = tokenizer
        self._stop = self._find_stop()

    @property
    def stop_text(self) -> str:
        """Return the token that ends a turn, as text; the end-of-text token when none does."""
        return self._stop or str(self._tokenizer.eos_token or "")

    def render_prompt(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        template_kwargs: Mapping[str, object] | None = None,
    ) -> str:
        """Render what a server sends to the model to get the next assistant turn.

        A last assistant message is taken as begun and is continued, not answered.
        """
        talk = Conversation(tuple(messages), (), tuple(tools), template_kwargs)
        if messages and messages[-1].role == "assistant":
            return self._render(talk, talk.prompt, continue_final_message=True)
        return self._render(talk, talk.prompt, add_generation_prompt=True)

    def render_continued(self, talk: Conversation, text: str, *, add_eos: bool) -> Rendered:
        """Render a reply given as a string: the rest of a begun message, or a whole one."""
        if talk.prompt[-1].role != "assistant":
            reply = Message("assistant", text)
            return self.render(replace(talk, completion=(reply,)), "last", add_eos=add_eos)
        begun = self.render_prompt(
            talk.prompt, tools=talk.tools, template_kwargs=talk.template_kwargs
        )
        said = without_stop(text, self.stop_text)
        whole = begun + said + (self.stop_text if add_eos else "")
        return Rendered(whole, ((len(begun), len(whole)),))

    def render(self, talk: Conversation, turns: ScoredTurns, *, add_eos: bool) -> Rendered:
        """Render a conversation up to its last scored turn, with the spans that `turns` selects.

        A turn runs from the end of its generation prompt to its stop token, included; a last turn
        whose template writes none gets the end-of-text token. Without `add_eos` the last turn ends
        before its stop token. An empty think block that the template put in is not the policy's.
        No span means that nothing was selected. Raises Unusable for a conversation that has not
        the turns asked for, or whose turns cannot be found in its rendering.
        """
        completion = tuple(self._clean(message) for message in talk.completion)
        messages = (*talk.prompt, *completion)
        selected = _select(messages, len(talk.prompt), turns)
        if not selected:
            return Rendered("", ())
        messages = messages[: selected[-1] + 1]
        whole = self._render(talk, messages)
        spans: list[tuple[int, int]] = []
        n_violations = 0
        for index in selected:
            turn = self._locate(talk, messages, index, whole)
            if index == selected[-1]:
                whole = whole[: turn.stop] + (self.stop_text if add_eos else "")
                turn = replace(turn, end=len(whole))
            n_violations += not turn.is_exact
            spans.extend(score_turn(messages[index], whole, turn, turns))
        return Rendered(whole, tuple(spans), n_violations)

    def _locate(
        self, talk: Conversation, messages: tuple[Message, ...], index: int, whole: str
    ) -> Turn:
        """Find an assistant turn in the rendering of all messages."""
        asked = self._render(talk, messages[:index], add_generation_prompt=True)
        start = common_length(asked, whole)
        if start < len(asked):
            # Only the generation prompt may differ; before it nothing could be told apart.
            before = self._render(talk, messages[:index]).rstrip()
            if start < len(before) or not whole.startswith(before):
                raise Unusable("turn not found")
        is_last = index == len(messages) - 1
        answered = whole if is_last else self._render(talk, messages[: index + 1])
        said = self._without_ending(messages[index], answered[common_length(asked, answered) :])
        is_exact = start == len(asked) and whole.startswith(said, start)
        if not whole.startswith(said, start):
            # Reasoning of earlier turns is what templates take back.
            said = said.rpartition("</think>")[2].lstrip()
        if not whole.startswith(said, start):
            raise Unusable("turn not found")
        _check_calls(messages[index], said)
        stop = start + len(said)
        is_closed = bool(self._stop) and whole.startswith(str(self._stop), stop)
        return Turn(start, stop, stop + len(self._stop or "") * is_closed, is_exact)

    def _without_ending(self, message: Message, said: str) -> str:
        """Cut a turn before its stop token, or where its text ends when it has none."""
        check_fields(message, said, self.stop_text)
        if self._stop and self._stop in said:
            return said.partition(self._stop)[0]
        if message.fields.get("tool_calls"):
            # Some templates open the tool's answer right after the call; that is not the policy's.
            return _TOOL_OPENER.sub("", said.rstrip())
        found = said.rfind(message.text) if message.text else -1
        return said[: found + len(message.text)] if found >= 0 else said.rstrip()

    def _render(
        self,
        talk: Conversation,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> str:
        try:
            return str(
                # The declared types are narrower than what templates take.
                self._tokenizer.apply_chat_template(
                    [message.to_template() for message in messages],  # type: ignore[arg-type]
                    # An empty list makes some templates write the boilerplate of tools.
                    tools=[dict(tool) for tool in talk.tools] or None,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    tokenize=False,
                    **(talk.template_kwargs or {}),  # type: ignore[arg-type]
                )
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise DataError(
                f"the chat template refuses the conversation ({error}); change the messages or "
                "the template"
            ) from error

    def _find_stop(self) -> str | None:
        probe = Conversation((Message("user", "?"), Message("assistant", _PROBE)), ())
        tail = self._render(probe, probe.prompt).rpartition(_PROBE)[2]
        special = {*self._tokenizer.all_special_ids, *self._tokenizer.added_tokens_decoder}
        for token in self._tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in special:
                return str(self._tokenizer.convert_ids_to_tokens(token))
        return None

    def _clean(self, message: Message) -> Message:
        if message.role != "assistant":
            return message
        said = without_stop(message.text, self.stop_text)
        return replace(message, content=said) if isinstance(message.content, str) else message


def common_length(one: Sequence[object], other: Sequence[object]) -> int:
    """Count the leading tokens or characters that two sequences share."""
    limit = min(len(one), len(other))
    if one[:limit] == other[:limit]:
        return limit
    return next(i for i in range(limit) if one[i] != other[i])


def _select(messages: Sequence[Message], n_prompt: int, turns: ScoredTurns) -> list[int]:
    replies = [i for i in range(n_prompt, len(messages)) if messages[i].role == "assistant"]
    if turns == "explicit":
        return [index for index in replies if messages[index].scored]
    if turns == "final_answer" and replies and messages[replies[-1]].fields.get("tool_calls"):
        raise Unusable("no final answer")
    return replies if turns == "all" else replies[-1:]


def _check_calls(message: Message, said: str) -> None:
    calls = message.fields.get("tool_calls")
    for call in calls if isinstance(calls, Sequence) else ():
        name = call.get("function", call).get("name", "")
        if name not in said:
            raise DataError(
                f"the chat template leaves out the tool call {name} (needs a template that renders "
                "tool_calls); write the call into the message's content or change the template"
            )
