"""What the model is asked: to finish a function, and to write asserts for one.

A prompt ends inside the answer: with the header of the program, or with `assert name(`. These
tokens are context. The model continues them, and what it samples is the whole completion that
training scores later, token for token. Such a prompt never ends in a line break, because tokenizers
merge it with the indentation that follows. In the style `answer`, the prompt ends where the
assistant's turn begins, and `answers.py` reads the program.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase
from trillium.errors import ConfigError
from trillium.fields import Message
from trillium.rendering import ChatTemplate
from trillium.tokenize import tokenize_prompts

from trillium_code.fences import fenced_blocks
from trillium_code.prompt_config import FENCE_END, SHOTS, ProgramStyle, PromptConfig, Shot
from trillium_code.tasks import CodeTask

_JOINT_COMMENT = "# Each function is followed by one assert that tests it.\n\n\n"


def program_prompts(
    tasks: Sequence[CodeTask], tokenizer: PreTrainedTokenizerBase, config: PromptConfig
) -> list[tuple[int, ...]]:
    """Return the token ids that ask for each task's function, or for its body after a header."""
    shots = SHOTS[: config.program_shots]
    if config.program_style == "completion":
        before = "".join(f"{shot.header}{shot.body}\n\n\n" for shot in shots)
        return tokenize_prompts([before + task.header.rstrip("\n") for task in tasks], tokenizer)
    ask = _ask_answer if config.program_style == "answer" else _ask_program
    turns = [
        message
        for shot in shots
        for message in (
            ask(shot),
            Message("assistant", f"```python\n{shot.header}{shot.body}{FENCE_END}"),
        )
    ]
    conversations = [
        (*turns, ask(task), *_begun_answer(task, config.program_style)) for task in tasks
    ]
    _check_template(tokenizer, "program_style", config.program_style)
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
    _check_template(tokenizer, "test_style", config.test_style)
    return tokenize_prompts(conversations, tokenizer)


@dataclass(frozen=True)
class JointPrompt:
    """Ask for a program and one test of it; only training uses this, evaluation asks for code."""

    ids: tuple[int, ...]
    tokenizer: PreTrainedTokenizerBase
    style: ProgramStyle

    def respond(self, program_text: str, test: str) -> tuple[int, ...]:
        """Return the tokens of a sampled program followed by a test.

        The two were sampled apart, so their text is tokenised anew as one response. A free answer
        goes on with a code block for the test, and ends as the model's turns end.
        """
        if self.style == "answer":
            text = _answer_with_test(program_text.rstrip(), test)
            text += ChatTemplate(self.tokenizer).stop_text
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        end = FENCE_END if self.style == "chat" else "\n"
        text = f"{program_text.rstrip()}\n\n\n{test}{end}"
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def joint_prompts(
    tasks: Sequence[CodeTask], tokenizer: PreTrainedTokenizerBase, config: PromptConfig
) -> list[JointPrompt]:
    """Return the prompts that ask for a program and a test, in the style of programs."""
    style = config.program_style
    if style == "completion":
        texts = [_JOINT_COMMENT + task.header.rstrip("\n") for task in tasks]
        ids = tokenize_prompts(texts, tokenizer)
    else:
        _check_template(tokenizer, "program_style", style)
        conversations = [(_ask_joint(task, style), *_begun_answer(task, style)) for task in tasks]
        ids = tokenize_prompts(conversations, tokenizer)
    return [JointPrompt(one, tokenizer, style) for one in ids]


def assert_opening(task: CodeTask) -> str:
    """Return the text that a completion of a test prompt continues."""
    return f"assert {task.entry_point}("


def _ask_program(task: CodeTask | Shot) -> Message:
    return Message("user", f"Write a Python function `{task.entry_point}`. {task.statement}")


def _ask_answer(task: CodeTask | Shot) -> Message:
    header = task.header.rstrip("\n")
    return Message(
        "user",
        "Complete this Python function. Answer with the whole function in one code block.\n\n"
        f"```python\n{header}{FENCE_END}",
    )


def _ask_joint(task: CodeTask, style: ProgramStyle) -> Message:
    if style == "answer":
        asked = _ask_answer(task).content
        return Message(
            "user", f"{asked}\n\nAfter it, write one assert that tests it, in a block of its own."
        )
    asked = _ask_program(task).content
    return Message("user", f"{asked} After the function, write one assert that tests it.")


def _begun_answer(task: CodeTask, style: ProgramStyle) -> tuple[Message, ...]:
    """Return the answer's begin that the model continues; none in the style `answer`."""
    if style == "answer":
        return ()
    return (Message("assistant", "```python\n" + task.header.rstrip("\n")),)


def _answer_with_test(answer: str, test: str) -> str:
    """Put a test behind an answer; one that was cut off inside its code block goes on there."""
    blocks = fenced_blocks(answer)
    if blocks and not blocks[-1].is_closed:
        return f"{answer}\n\n\n{test}{FENCE_END}"
    return f"{answer}\n\n```python\n{test}{FENCE_END}"


def _ask_tests(task: CodeTask | Shot) -> Message:
    return Message(
        "user",
        "Write tests for this Python function, one assert per line.\n\n"
        f"```python\n{task.header}```",
    )


def _lines(shot: Shot) -> str:
    return "\n".join(shot.tests)


def _check_template(tokenizer: PreTrainedTokenizerBase, key: str, style: str) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            f"prompt.{key} = {style}: the tokenizer {tokenizer.name_or_path or 'of the model'} has "
            f"no chat template; set prompt.{key}=completion, or choose an instruct model"
        )
