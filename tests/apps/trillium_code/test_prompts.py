import pytest
from trillium.errors import ConfigError
from trillium.policies.tiny import tiny_tokenizer
from trillium_code.prompts import SHOTS, PromptConfig, assert_prompts, program_prompts
from trillium_code.task_files import document
from trillium_code.tasks import CodeTask

TASK = CodeTask("t/inc", "inc", document("def inc(n: int) -> int:", "Add one.", None), "Add one.")


def text(ids):
    return tiny_tokenizer().decode(ids)


def test_a_chat_prompt_ends_inside_the_answer_after_the_header():
    (ids,) = program_prompts([TASK], tiny_tokenizer(), PromptConfig())
    assert text(ids) == (
        "<|im_start|>user\nWrite a Python function `inc`. Add one.<|im_end|>\n"
        '<|im_start|>assistant\n```python\ndef inc(n: int) -> int:\n    """Add one."""'
    )


def test_a_completion_prompt_is_plain_code():
    config = PromptConfig(program_style="completion", program_shots=1)
    (ids,) = program_prompts([TASK], tiny_tokenizer(), config)
    shot = SHOTS[0]
    assert text(ids) == f"{shot.header}{shot.body}\n\n\n" + TASK.header.rstrip("\n")


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_a_prompt_for_tests_ends_with_the_call_and_shows_the_shots(style):
    config = PromptConfig(test_style=style, test_shots=2)
    (ids,) = assert_prompts([TASK], tiny_tokenizer(), config)
    assert text(ids).endswith("assert inc(")
    for shot in SHOTS:
        assert all(test in text(ids) for test in shot.tests)
    assert text(ids).count("<|im_start|>assistant") == (3 if style == "chat" else 0)


def test_the_worked_examples_are_right():
    for shot in SHOTS:
        names = {}
        exec(shot.header + shot.body, names)
        for test in shot.tests:
            exec(test, names)


def test_chat_without_a_template_says_which_key_to_change():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(ConfigError, match=r"prompt\.program_style=completion"):
        program_prompts([TASK], tokenizer, PromptConfig())
    with pytest.raises(ConfigError, match=r"prompt\.test_style=completion"):
        assert_prompts([TASK], tokenizer, PromptConfig(test_style="chat"))
