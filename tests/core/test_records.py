import json
from dataclasses import replace

import pytest
from datasets import Dataset
from trillium.errors import DataError
from trillium.fields import Message
from trillium.records import LabelledRow, PairRow, RankingRow, TrajectoryRow
from trillium.rowfiles import parse_rows
from trillium.search_records import Step, TreeRow


def chat(*turns: str) -> list[dict[str, object]]:
    """Write user and assistant messages in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(turns)]


def pair(**record: object) -> PairRow:
    return parse_rows([record], PairRow, where="rows")[0]


def test_plain_pair() -> None:
    row = pair(prompt="The sky is", chosen=" blue.", rejected=" green.")

    assert (row.prompt, row.chosen, row.rejected) == ("The sky is", " blue.", " green.")


def test_conversational_pair() -> None:
    row = pair(prompt=chat("hi"), chosen=chat("hi", "a")[1:], rejected=chat("hi", "b")[1:])

    assert row.prompt == (Message("user", "hi"),)
    assert row.chosen == (Message("assistant", "a"),)


def test_implicit_prompt_of_conversations_is_their_common_start() -> None:
    row = pair(chosen=chat("q", "r", "s", "yes"), rejected=chat("q", "r", "s", "no"))

    assert row.prompt == tuple(Message(m["role"], m["content"]) for m in chat("q", "r", "s"))  # type: ignore[arg-type]
    assert row.chosen == (Message("assistant", "yes"),)
    assert row.rejected == (Message("assistant", "no"),)


def test_implicit_prompt_of_strings_ends_before_the_space() -> None:
    row = pair(chosen="The sky is blue.", rejected="The sky is green.")

    assert (row.prompt, row.chosen, row.rejected) == ("The sky is", " blue.", " green.")


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        ("Human: hi Assistant: yes", "Human: hi Assistant: no"),
        ("Human: hi", "Human: ho"),
        (chat("q", "a", "r", "b"), chat("q", "a", "r", "c")),
        (chat("q", "a"), chat("q", "b", "c")),
    ],
)
def test_implicit_prompts_are_those_of_trl(chosen: object, rejected: object) -> None:
    extract_prompt = pytest.importorskip("trl.data_utils").extract_prompt
    expected = extract_prompt({"chosen": chosen, "rejected": rejected})

    row = pair(chosen=chosen, rejected=rejected)

    assert pair(**expected) == replace(row, id=pair(**expected).id)


def test_string_prompt_beside_whole_conversations_is_taken_from_them() -> None:
    row = pair(prompt="q", chosen=chat("q", "yes"), rejected=chat("q", "no"))

    assert row.prompt == (Message("user", "q"),)
    assert row.chosen == (Message("assistant", "yes"),)


def test_a_prompt_repeated_in_both_replies_is_cut_off_them() -> None:
    row = pair(prompt=chat("q"), chosen=chat("q", "yes"), rejected=chat("q", "no"))

    assert row.chosen == (Message("assistant", "yes"),)
    assert row.rejected == (Message("assistant", "no"),)


def test_twin_conversations_keep_a_reply_each() -> None:
    row = pair(chosen=chat("q", "same"), rejected=chat("q", "same"))

    assert row.prompt == (Message("user", "q"),)
    assert row.chosen == row.rejected == (Message("assistant", "same"),)


def test_numbers_beside_a_pair_are_columns_and_labels() -> None:
    row = pair(
        prompt="p",
        chosen="c",
        rejected="r",
        margin=2,
        weight=0.5,
        hard=True,
        source="web",
        chosen_reward=1.5,
        rejected_reward=-1,
        score_chosen=9,
        score_rejected=7,
    )

    assert row.columns == {"margin": 2.0, "weight": 0.5, "hard": 1.0}
    assert row.labels == {"reward": (1.5, -1.0), "score": (9.0, 7.0)}


def test_tools_are_read_from_a_list_or_a_json_string() -> None:
    tool = {"type": "function", "function": {"name": "add"}}

    for tools in ([tool], json.dumps([tool])):
        assert pair(prompt="p", chosen="c", rejected="r", tools=tools).tools == (tool,)


def test_a_hugging_face_data_set_runs_unchanged() -> None:
    dataset = Dataset.from_list(
        [
            {"prompt": chat("a"), "completion": chat("a", "b")[1:], "label": True},
            {
                "prompt": chat("a"),
                "completion": [{"role": "assistant", "content": "c", "name": "x"}],
                "label": False,
            },
        ]
    )

    rows = parse_rows(dataset, LabelledRow, where="dataset")

    assert [row.label for row in rows] == [1.0, 0.0]
    # Arrow fills the name of the first message with null; a template must not see it.
    assert rows[0].completion == (Message("assistant", "b"),)
    assert rows[1].completion == (Message("assistant", "c", {"name": "x"}),)


def test_ids_are_kept_or_made_from_content() -> None:
    record = {"prompt": "p", "chosen": "c", "rejected": "r"}

    assert pair(**record, id=7).id == "7"
    assert pair(**record).id == pair(**record).id
    assert pair(**record).id != pair(**{**record, "chosen": "d"}).id
    assert len(pair(**record).id) == 16


def test_rankings_take_rewards_or_ranks() -> None:
    record = {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 0.5], "ranks": [1, 2]}

    row = parse_rows([record], RankingRow, where="rows")[0]

    assert row.labels == {"reward": (1.0, 0.5), "rank": (1.0, 2.0)}


def test_trajectories_keep_tool_calls_and_reward() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    record = {
        "messages": [
            {"role": "user", "content": "1+1"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ],
        "reward": 0.5,
    }

    row = parse_rows([record], TrajectoryRow, where="rows")[0]

    assert row.messages[1] == Message("assistant", None, {"tool_calls": [call]})
    assert row.reward == 0.5


def test_trees_end_at_steps_without_children_unless_told() -> None:
    steps = [{"text": "a"}, {"text": "b", "parent": 0, "scored": False}, {"text": "c"}]
    record = {"prompt": "p", "steps": steps}

    row = parse_rows([record], TreeRow, where="rows")[0]
    named = parse_rows([{**record, "leaves": [0]}], TreeRow, where="rows")[0]

    assert row.steps == (Step("a", -1), Step("b", 0, False), Step("c", -1))
    assert row.leaves == (1, 2)
    assert named.leaves == (0,)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"prompt": "p", "chosen": "c"},
            'rows:1: field "rejected" is missing (needs prompt, chosen, rejected); '
            "drop the line or add the field",
        ),
        ({"chosen": "abc", "rejected": "xyz"}, '"chosen" and "rejected" share no start'),
        ({"prompt": "p", "chosen": 3, "rejected": "r"}, 'field "chosen" is 3 (needs a string'),
        ({"prompt": "p", "chosen": [], "rejected": "r"}, 'field "chosen" is [] (needs a string'),
        ({"prompt": "p", "chosen": "c", "rejected": chat("r")}, "a string and a conversation"),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "margin": float("nan")}, "is NaN (needs"),
        ({"prompt": chat("p"), "chosen": chat("q"), "rejected": chat("q")}, "no assistant message"),
        ({"prompt": [{"content": "x"}], "chosen": "c", "rejected": "r"}, 'field "prompt[0]" is'),
        (
            {"prompt": [{"role": "user", "content": 1}], "chosen": "c", "rejected": "r"},
            'field "prompt[0].content" is 1',
        ),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "id": 1.5}, 'field "id" is 1.5'),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "tools": "{"}, '"tools" is not JSON'),
        ({"prompt": "p", "chosen": "c", "rejected": "r", "tools": [1]}, "a list of schemas"),
    ],
)
def test_wrong_pairs_say_what_is_wrong(record: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        pair(**record)

    assert message in str(caught.value)


def test_a_nan_label_is_refused() -> None:
    record = {"prompt": "p", "completion": "c", "label": float("nan")}

    with pytest.raises(DataError, match='"label" is NaN'):
        parse_rows([record], LabelledRow, where="rows")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [1.0]}, 'field "rewards" is [1.0] (needs a list of 2 finite numbers'),
        ({"rewards": [1.0, float("inf")]}, "needs a list of 2 finite numbers"),
        ({"rewards": None}, 'field "rewards" is missing (needs prompt, completions, rewards or'),
        ({"completions": []}, 'field "completions" is [] (needs a non-empty list of responses)'),
        ({"completions": ["a", 1]}, 'field "completions[1]" is 1'),
    ],
)
def test_wrong_rankings_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    record = {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 2], **change}

    with pytest.raises(DataError) as caught:
        parse_rows([record], RankingRow, where="rows")

    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": []}, "needs at least one step"),
        ({"steps": [{"text": "a", "parent": 0}]}, "an earlier step or -1"),
        ({"steps": [{"text": ""}]}, "needs text"),
        ({"steps": ["a"]}, 'field "steps[0]" is no step'),
        ({"leaves": [3]}, "needs numbers of steps"),
        ({"leaves": [0.9]}, 'field "leaves" is (0.9,) (needs numbers of steps)'),
        ({"labels": {"reward": [1, 2]}}, "needs a list of 1 finite numbers"),
    ],
)
def test_wrong_trees_say_what_is_wrong(change: dict[str, object], message: str) -> None:
    record = {"prompt": "p", "steps": [{"text": "a"}], **change}

    with pytest.raises(DataError) as caught:
        parse_rows([record], TreeRow, where="rows")

    assert message in str(caught.value)


def test_explicit_spans_lie_within_the_text() -> None:
    good = {"role": "assistant", "content": "abc", "scored": [[0, 2]]}
    bad = {"role": "assistant", "content": "abc", "scored": [[2, 5]]}

    row = parse_rows([{"messages": [good]}], TrajectoryRow, where="rows")[0]

    assert row.messages[0].scored == ((0, 2),)
    with pytest.raises(DataError, match="within its 3 characters"):
        parse_rows([{"messages": [bad]}], TrajectoryRow, where="rows")
