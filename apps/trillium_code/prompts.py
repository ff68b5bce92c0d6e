"""What the model is asked: to finish a function, and to write asserts for one.

A prompt ends inside the answer: with the header of the program, or with `assert name(`. These
tokens are context. The model continues them, and what it samples is the whole completion that
training scores later, token for token. A prompt never ends in a line break, because tokenizers
merge it with the indentation that follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerBase
from trillium.errors import ConfigError
from trillium.fields import Message
from trillium.tokenize import tokenize_prompts

from trillium_code.tasks import CodeTask

Style = Literal["chat", "completion"]

FENCE_END = "\n```"
# A line that starts in the first column ends a function; these are the starts that models write.
PROGRAM_STOPS = (FENCE_END, "\ndef ", "\nclass ", "\nassert", "\nprint", "\n#", "\nif ", "\n\n\n")
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

    program_style: Style = Field("chat", description="chat (needs a template) or completion")
    test_style: Style = Field("completion", description="chat (needs a template) or completion")
    program_shots: int = Field(
        0, ge=0, le=len(SHOTS), description="worked examples before a program"
    )
    test_shots: int = Field(2, ge=0, le=len(SHOTS), description="worked examples before tests")


def program_prompts(
    tasks: Sequence[CodeTask], tokenizer: PreTrainedTokenizerBase, config: PromptConfig
) -> list[tuple[int, ...]]:
    """Return the token ids that ask for the body of each task's function."""
    shots = SHOTS[: config.program_shots]
    if config.program_style == "completion":
        before = "".join(f"{shot.header}{shot.body}\n\n\n" for shot in shots)
        return tokenize_prompts([before + task.header.rstrip("\n") for task in tasks], tokenizer)
    turns = [
        message
        for shot in shots
        for message in (
            _ask_program(shot),
            Message("assistant", f"```python\n{shot.header}{shot.body}{FENCE_END}"),
        )
    ]
    conversations = [
        (
            *turns,
            _ask_program(task),
            Message("assistant", "```python\n" + task.header.rstrip("\n")),
        )
        for task in tasks
    ]
    _check_template(tokenizer, "program_style")
    return tokenize_prompts(conversations, tokenizer)


def assert_prompts(
    tasks: Sequence[CodeTask], tokenizer: PreTrainedTokenizerBase, config: PromptConfig
) -> list[tuple[int, ...]]:
    """Return the token ids that ask for asserts; each ends with `assert_opening` of its task."""
    shots = SHOTS[: config.test_shots]
    if config.test_style == "completion":
        before = "".join(f"{shot.header}    ...\n\n\n{_lines(shot)}\n\n\n" for shot in shots)
        texts = [f"{before}{task.header}    ...\n\n\n{assert_opening(task)}" for task in tasks]
        return tokenize_prompts(texts, tokenizer)
    turns = [
        message
        for shot in shots
        for message in (
            _ask_tests(shot),
            Message("assistant", f"```python\n{_lines(shot)}{FENCE_END}"),
        )
    ]
    conversations = [
        (*turns, _ask_tests(task), Message("assistant", "```python\n" + assert_opening(task)))
        for task in tasks
    ]
    _check_template(tokenizer, "test_style")
    return tokenize_prompts(conversations, tokenizer)


def assert_opening(task: CodeTask) -> str:
    """Return the text that a completion of a test prompt continues."""
    return f"assert {task.entry_point}("


def _ask_program(task: CodeTask | Shot) -> Message:
    return Message("user", f"Write a Python function `{task.entry_point}`. {task.statement}")


def _ask_tests(task: CodeTask | Shot) -> Message:
    return Message(
        "user",
        "Write tests for this Python function, one assert per line.\n\n"
        f"```python\n{task.header}```",
    )


def _lines(shot: Shot) -> str:
    return "\n".join(shot.tests)


def _check_template(tokenizer: PreTrainedTokenizerBase, key: str) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"prompt.{key} = chat: the tokenizer {tokenizer.name_or_path or 'of the model'} has no "
            f"chat template; set prompt.{key}=completion, or choose an instruct model"
        )
