"""T8 of the traps of preference tokenisation: which turns of an assistant count, and where."""

import pytest
from trillium.fields import Message
from trillium.policies.tiny import tiny_tokenizer
from trillium.records import PairRow, TrajectoryRow
from trillium.tokenize import (
    TokenizeConfig,
    tokenize_pairs,
    tokenize_trajectories,
)

from .chat_rows import (
    CONFIG,
    TOOLS,
    TRIMMING,
    Family,
    assistant,
    masks,
    tool_row,
    user,
)

TURNS = TrajectoryRow(
    messages=(
        user("a"),
        Message("assistant", "bbb", scored=((1, 3),)),
        user("c"),
        Message("assistant", "<think>x</think> d", scored=True),
        user("e"),
    )
)


@pytest.mark.parametrize(
    ("turns", "first", "last"),
    [
        ("all", "{bbb<|im_end|>}", "{<think>x</think> d<|im_end|>}"),
        ("last", "bbb<|im_end|>", "{<think>x</think> d<|im_end|>}"),
        ("final_answer", "bbb<|im_end|>", "<think>x</think> {d<|im_end|>}"),
        ("explicit", "b{bb}<|im_end|>", "{<think>x</think> d<|im_end|>}"),
    ],
)
def test_each_mode_scores_its_turns(turns: str, first: str, last: str) -> None:
    tokenizer = tiny_tokenizer()
    config = TokenizeConfig.model_validate({"scored_turns": turns})

    dataset = tokenize_trajectories([TURNS], tokenizer, config)

    assert masks(tokenizer, dataset) == [
        f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{first}\n"
        f"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n{last}"
    ]


CALLS = [{"function": {"name": "f"}}]


@pytest.mark.parametrize(
    ("text", "fields", "spans", "expected"),
    [
        ("4", {"reasoning_content": "It is 4"}, ((0, 1),), "<think>It is 4</think>{4}<|im_end|>"),
        ("think", {"reasoning_content": "a"}, ((0, 5),), "<think>a</think>{think}<|im_end|>"),
        ("\n\nhello", {}, ((0, 4), (4, 7)), "{hello}<|im_end|>"),
        ("hello ", {}, ((3, 6),), "hel{lo}<|im_end|>"),
        (" f\n", {"tool_calls": CALLS}, ((0, 3),), '{f}<call>{"name": "f"}</call><|im_end|>'),
    ],
)
def test_explicit_spans_lie_on_the_text_that_they_name(
    text: str, fields: dict[str, object], spans: tuple[tuple[int, int], ...], expected: str
) -> None:
    """Templates trim, and reasoning or a call may say the same."""
    reply = Message("assistant", text, fields, scored=spans)
    row = TrajectoryRow(messages=(user("a"), reply, *TURNS.messages))
    tokenizer = Family(TRIMMING).tokenizer()
    config = TokenizeConfig(scored_turns="explicit")

    (found,) = masks(tokenizer, tokenize_trajectories([row], tokenizer, config))

    assert found.split("<|im_start|>")[2] == f"assistant\n{expected}\n"


def test_an_explicit_span_that_the_template_leaves_out_drops_the_row() -> None:
    blank = Message("assistant", "\n\nhello", scored=((0, 2),))
    config = TokenizeConfig(scored_turns="explicit")
    tokenizer = Family(TRIMMING).tokenizer()

    report = tokenize_trajectories(
        [TrajectoryRow(messages=(user("a"), blank)), TURNS], tokenizer, config
    ).report

    assert report.n_dropped == {"scored text left out by the template": 1}


def test_a_trajectory_that_ends_in_a_call_has_no_final_answer() -> None:
    cut = TrajectoryRow(messages=tool_row().messages[:2])
    config = TokenizeConfig(scored_turns="final_answer")

    report = tokenize_trajectories([cut, tool_row()], Family(TOOLS).tokenizer(), config).report

    assert report.n_dropped == {"no final answer": 1}


def test_turns_of_the_prompt_are_context() -> None:
    tokenizer = tiny_tokenizer()
    row = PairRow(
        prompt=(user("a"), assistant("b"), user("c")),
        chosen=(assistant("d"), user("e"), assistant("f")),
        rejected=(assistant("g"),),
    )

    chosen, rejected = masks(tokenizer, tokenize_pairs([row], tokenizer, CONFIG))

    assert chosen.endswith(
        "assistant\n{d<|im_end|>}\n<|im_start|>user\ne<|im_end|>\n"
        "<|im_start|>assistant\n{f<|im_end|>}"
    )
    assert "{" not in chosen.split("{d")[0]
    assert rejected.endswith("{g<|im_end|>}")
