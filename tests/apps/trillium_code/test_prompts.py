import pytest
from trillium.errors import ConfigError
from trillium.files import hash_json
from trillium.policies.tiny import tiny_tokenizer
from trillium_code.answers import read_answer
from trillium_code.prompts import (
    SHOTS,
    PromptConfig,
    assert_prompts,
    joint_prompts,
    program_prompts,
)
from trillium_code.task_rows import document
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


@pytest.mark.parametrize("style", ["chat", "completion"])
def test_a_joint_prompt_asks_for_a_test_too_and_ends_with_the_header(style):
    config = PromptConfig(program_style=style)
    (joint,) = joint_prompts([TASK], tiny_tokenizer(), config)
    (alone,) = program_prompts([TASK], tiny_tokenizer(), config)
    assert joint.ids != alone
    assert "one assert that tests it" in text(joint.ids)
    assert text(joint.ids).endswith(TASK.header.rstrip("\n"))
    answer = text(joint.respond("\n    return n + 1", "assert inc(1) == 2"))
    assert answer.startswith("\n    return n + 1\n\n\nassert inc(1) == 2")


def test_a_prompt_for_an_answer_shows_the_function_and_ends_where_the_turn_begins():
    config = PromptConfig(program_style="answer", program_shots=1)
    (ids,) = program_prompts([TASK], tiny_tokenizer(), config)
    shot = SHOTS[0]
    asked = "Complete this Python function. Answer with the whole function in one code block."
    assert text(ids) == (
        f"<|im_start|>user\n{asked}\n\n```python\n{shot.header}```<|im_end|>\n"
        f"<|im_start|>assistant\n```python\n{shot.header}{shot.body}\n```<|im_end|>\n"
        f"<|im_start|>user\n{asked}\n\n```python\n{TASK.header}```<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert read_answer(f"```python\n{shot.header}{shot.body}\n```", shot.entry_point, "").is_whole


def test_a_joint_answer_is_the_sampled_answer_a_block_with_the_test_and_the_end_of_a_turn():
    config = PromptConfig(program_style="answer")
    (joint,) = joint_prompts([TASK], tiny_tokenizer(), config)
    assert "write one assert that tests it" in text(joint.ids)
    assert text(joint.ids).endswith("<|im_start|>assistant\n")
    answer = "Sure:\n```python\ndef inc(n):\n    return n + 1\n```\n"
    assert text(joint.respond(answer, "assert inc(1) == 2")) == (
        f"{answer}\n```python\nassert inc(1) == 2\n```<|im_end|>"
    )
    cut_off = "Sure:\n```python\ndef inc(n):\n    return n"
    assert text(joint.respond(cut_off, "assert inc(1) == 2")) == (
        f"{cut_off}\n\n\nassert inc(1) == 2\n```<|im_end|>"
    )


def test_an_answer_without_a_template_says_which_key_to_change():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    config = PromptConfig(program_style="answer")
    for ask in (program_prompts, joint_prompts):
        with pytest.raises(ConfigError, match=r"prompt\.program_style = answer: .* no chat templ"):
            ask([TASK], tokenizer, config)


def test_how_answers_are_read_asks_for_nothing_new():
    """So a run that is repeated with repairs keeps its samples, and one from before stays valid."""
    plain = PromptConfig(program_style="answer")
    repairing = PromptConfig(program_style="answer", repairs_signature=True)
    assert plain.asked_hash == repairing.asked_hash != PromptConfig().asked_hash
    shown = {"program_shots": 0, "program_style": "answer", "test_shots": 2}
    assert plain.asked_hash == hash_json({**shown, "test_style": "completion"})
