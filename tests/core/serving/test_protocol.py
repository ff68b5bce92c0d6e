"""Requests that are refused: which field, which entry, and what is wrong with it."""

import json

import pytest
from trillium.serving.protocol import ChatRequest, CompletionRequest, parse
from trillium.serving.rows import RefusedError


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("prompt", [], "prompt: List should have at least 1 item"),
        ("prompt", [-1], "prompt.0: Input should be greater than or equal to 0"),
        ("prompt", [1, 1.5], "prompt.1: Input should be a valid integer"),
        ("prompt", ["x", 1], "prompt.1: Input should be a valid string"),
        ("prompt", [[1], "x"], "prompt.1: Input should be a valid array"),
        ("prompt", [[]], "prompt.0: List should have at least 1 item"),
        ("prompt", 5, "prompt: Input should be a valid string"),
        ("stop", ["s"] * 17, "stop: List should have at most 16 items"),
        ("stop", [""], "stop.0: String should have at least 1 character"),
        ("stop", "", "stop: String should have at least 1 character"),
        ("messages", [], "messages: List should have at least 1 item"),
        ("messages", [{"role": "user", "content": 5}], "messages.0.content: Input should be"),
        ("messages", [{"role": "user", "content": [{}]}], "messages.0.content.0.type: Field requ"),
    ],
)
def test_what_is_wrong_is_said_of_the_form_that_was_sent(field, value, said):
    kind, needed = (
        (ChatRequest, {}) if field == "messages" else (CompletionRequest, {"prompt": "x"})
    )
    with pytest.raises(RefusedError) as refusal:
        parse(kind, json.dumps({"model": "one", **needed, field: value}).encode())
    assert str(refusal.value).startswith(said)
    assert refusal.value.param == field


def test_prompts_come_in_four_forms():
    for prompt, expected in (
        ("x", ["x"]),
        (["x", "y"], ["x", "y"]),
        ([1, 2], [[1, 2]]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ):
        body = json.dumps({"model": "one", "prompt": prompt}).encode()
        assert parse(CompletionRequest, body).prompts() == expected
