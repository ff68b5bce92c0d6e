"""Tests T1 to T9 name the traps of preference tokenisation that other trainers fell into.

T8, which turns count, is in test_turn_spans.py.
"""

import math

import pytest
from trillium.errors import DataError
from trillium.fields import Message
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.records import PairRow, TrajectoryRow
from trillium.tokenize import (
    TokenizeConfig,
    tokenize_pairs,
    tokenize_prompts,
    tokenize_trajectories,
)

from .chat_rows import (
    CHATML,
    CONFIG,
    FAMILIES,
    REPAIR,
    TOOLS,
    TRIMMING,
    Family,
    assistant,
    chat_pair,
    masks,
    scored_ids,
    tool_row,
    user,
)

every_family = pytest.mark.parametrize("name", FAMILIES)


@every_family
def test_t1_exactly_one_stop_token_and_it_is_scored(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    stop = tokenizer.convert_tokens_to_ids(family.stop)

    tree = tokenize_pairs([chat_pair()], tokenizer, TokenizeConfig()).trees[0]

    for path, reply in ((tree.path(0), "yes"), (tree.path(1), "no")):
        assert scored_ids(path).count(stop) == 1
        assert path.ids[-1] == stop
        assert path.scored[-1]
        assert tokenizer.decode(scored_ids(path)).strip() == reply + family.stop


@every_family
def test_t1_a_stop_token_already_in_the_reply_is_not_doubled(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer()
    config = TokenizeConfig()

    clean = tokenize_pairs([chat_pair()], tokenizer, config).trees[0]
    doubled = tokenize_pairs([chat_pair("yes" + family.stop)], tokenizer, config).trees[0]

    assert doubled.path(0) == clean.path(0)


@pytest.mark.parametrize("add_eos", [True, False])
def test_t1_a_plain_reply_has_one_stop_token_as_well(add_eos: bool) -> None:
    tokenizer, config = tiny_tokenizer(), TokenizeConfig(add_eos=add_eos)
    clean, doubled, broken = (
        PairRow(id=ending, prompt="p", chosen="yes" + ending, rejected="no")
        for ending in ("", "<|im_end|>\n", "<|im_end|>x")
    )

    dataset = tokenize_pairs([clean, doubled, broken], tokenizer, config)

    assert dataset.trees[0].path(0) == dataset.trees[1].path(0)
    assert dataset.report.dropped == {"stop token inside a reply": ("<|im_end|>x",)}


def test_t1_a_stop_token_inside_a_reply_drops_the_row_and_counts_it() -> None:
    rows = [chat_pair("a<|im_end|>b"), chat_pair()]

    report = tokenize_pairs(rows, tiny_tokenizer(), TokenizeConfig()).report

    assert report.n_dropped == {"stop token inside a reply": 1}
    assert report.dropped["stop token inside a reply"] == (rows[0].id,)


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ([{"type": "text", "text": "a<|im_end|>b"}], {}),
        ([{"type": "text", "text": "a<|im_end|>"}, {"type": "text", "text": "b"}], {}),
        ([{"type": "thinking", "thinking": "a<|im_end|>"}, {"type": "text", "text": "b"}], {}),
        ("b", {"reasoning_content": "a<|im_end|>"}),
        (None, {"tool_calls": [{"function": {"name": "f", "arguments": {"a": "<|im_end|>"}}}]}),
    ],
    ids=["block", "blocks", "thinking", "reasoning", "call"],
)
def test_t1_a_stop_token_inside_a_block_a_call_or_reasoning_drops_the_row(
    content: str | list[dict[str, str]] | None, fields: dict[str, object]
) -> None:
    """The turn would end there, and what the policy wrote behind it would count for nothing."""
    broken = TrajectoryRow(messages=(user("a"), Message("assistant", content, fields)), id="x")
    whole = TrajectoryRow(messages=(user("a"), Message("assistant", "b", {"raw": "b<|im_end|>"})))

    report = tokenize_trajectories([broken, whole], Family(TRIMMING).tokenizer(), CONFIG).report

    assert report.dropped == {"stop token inside a reply": ("x",)}


@every_family
def test_t2_bos_appears_as_often_as_the_template_writes_it(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer()

    tree = tokenize_pairs([chat_pair()], tokenizer, TokenizeConfig()).trees[0]

    for index in range(2):
        ids = tree.path(index).ids
        assert ids.count(tokenizer.bos_token_id) == (1 if family.bos else 0)


def test_t2_plain_rows_get_one_bos_where_the_tokenizer_adds_one() -> None:
    tokenizer = FAMILIES["headers"].tokenizer()
    bos = tokenizer.bos_token_id
    rows = [
        PairRow(prompt="ab", chosen="c", rejected="d"),
        PairRow(prompt="<|endoftext|>ab", chosen="c", rejected="d"),
    ]

    trees = tokenize_pairs(rows, tokenizer, TokenizeConfig()).trees

    assert trees[0].path(0).ids[0] == bos
    assert [tree.path(index).ids.count(bos) for tree in trees for index in range(2)] == [1] * 4
    assert tokenize_pairs(rows[:1], tiny_tokenizer(), TokenizeConfig()).trees[0].nodes[0].ids == (
        tuple(tiny_tokenizer()("ab").input_ids)
    )


CONVERSATION = TrajectoryRow(
    messages=(
        user("one"),
        assistant("<think>\nhm\n</think>\n\nuno"),
        user("two"),
        assistant("<think>\naha\n</think>\n\ndos"),
    ),
    id="talk",
)


def test_t3_a_template_that_rewrites_earlier_turns_is_refused_with_a_count() -> None:
    other = TrajectoryRow(messages=(user("one"), assistant("uno")))

    with pytest.raises(DataError, match=r"in 1 of 2 rows .*first: row talk.*=repair"):
        tokenize_trajectories([other, CONVERSATION], FAMILIES["thinking"].tokenizer(), CONFIG)


def test_t3_repair_scores_what_the_whole_conversation_shows_and_counts_it() -> None:
    tokenizer = FAMILIES["thinking"].tokenizer()

    dataset = tokenize_trajectories([CONVERSATION], tokenizer, REPAIR)

    assert dataset.report.n_prefix_violations == 1
    assert masks(tokenizer, dataset) == [
        "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n{uno<|im_end|>}\n"
        "<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n"
        "{<think>\naha\n</think>\n\ndos<|im_end|>}"
    ]


def test_t3_a_generation_prompt_that_the_conversation_drops_is_found() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML.replace(
        "<|im_start|>assistant\n{% endif", "<|im_start|>assistant\n<think>\n{% endif"
    )

    with pytest.raises(DataError, match="in 1 of 1 rows"):
        tokenize_pairs([chat_pair()], tokenizer, CONFIG)
    dataset = tokenize_pairs([chat_pair()], tokenizer, REPAIR)
    assert masks(tokenizer, dataset)[0].endswith("<|im_start|>assistant\n{yes<|im_end|>}")


@pytest.mark.parametrize("name", ["chatml", "headers", "no_system", "instruction", "no_stop"])
def test_t3_templates_that_only_append_have_no_violations(name: str) -> None:
    row = TrajectoryRow(messages=(user("one"), assistant("uno"), user("two"), assistant("dos")))

    report = tokenize_trajectories([row], FAMILIES[name].tokenizer(), CONFIG).report

    assert report.n_prefix_violations == 0


def test_t4_generation_marks_change_nothing() -> None:
    """The template's own `{% generation %}` marks are ignored, present or not."""
    marked = tiny_tokenizer()
    marked.chat_template = CHATML.replace(
        "{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}"
    )

    with_marks = tokenize_pairs([chat_pair()], marked, CONFIG)
    without = tokenize_pairs([chat_pair()], tiny_tokenizer(), CONFIG)

    assert with_marks.trees == without.trees


def test_t4_a_row_without_scored_tokens_is_an_error_that_names_every_such_row() -> None:
    config = TokenizeConfig(add_eos=False)
    empty = [PairRow(id=name, prompt="p", chosen="", rejected="x") for name in ("a", "b")]

    with pytest.raises(DataError) as caught:
        tokenize_pairs(empty, tiny_tokenizer(), config)

    assert str(caught.value).startswith("row a, b: path 0 has 0 scored of 1 tokens")


def test_t4_explicit_spans_that_are_nowhere_are_an_error() -> None:
    with pytest.raises(DataError, match="0 scored of 0 tokens"):
        tokenize_pairs([chat_pair()], tiny_tokenizer(), TokenizeConfig(scored_turns="explicit"))


def test_t5_tool_calls_are_scored_and_tool_results_are_not() -> None:
    tokenizer = Family(TOOLS).tokenizer()

    dataset = tokenize_trajectories([tool_row()], tokenizer, CONFIG)

    assert masks(tokenizer, dataset) == [
        "<|im_start|>user\n1+1<|im_end|>\n<|im_start|>assistant\n"
        '{<call>add({"a": 1})</call><|im_end|>}\n<|im_start|>tool\n2<|im_end|>\n'
        "<|im_start|>assistant\n{It is 2<|im_end|>}"
    ]


def test_t5_the_opener_of_a_tool_response_is_not_the_policys() -> None:
    tokenizer = Family(TOOLS).tokenizer()

    dataset = tokenize_trajectories([tool_row(no_stop=True)], tokenizer, CONFIG)

    assert '{<call>add({"a": 1})</call>}<tool_response>\n' in masks(tokenizer, dataset)[0]


def test_t5_a_template_that_leaves_calls_out_is_an_error() -> None:
    with pytest.raises(DataError, match="leaves out the tool call add"):
        tokenize_trajectories([tool_row()], tiny_tokenizer(), CONFIG)


def test_t6_an_empty_think_block_of_the_template_is_not_scored() -> None:
    tokenizer = FAMILIES["thinking"].tokenizer()

    dataset = tokenize_pairs([chat_pair()], tokenizer, CONFIG)

    assert masks(tokenizer, dataset)[0].endswith("<think>\n\n</think>\n\n{yes<|im_end|>}")


def test_t6_a_think_block_of_the_policy_is_scored() -> None:
    tokenizer = FAMILIES["thinking"].tokenizer()

    dataset = tokenize_pairs([chat_pair("<think>\nhm\n</think>\n\nyes")], tokenizer, CONFIG)

    assert masks(tokenizer, dataset)[0].endswith("{<think>\nhm\n</think>\n\nyes<|im_end|>}")


def test_t7_a_model_whose_padding_is_its_stop_token_still_learns_to_stop() -> None:
    tokenizer = tiny_tokenizer()
    stop = tokenizer.eos_token_id
    trees = tokenize_pairs([chat_pair(), chat_pair("a longer reply")], tokenizer, CONFIG).trees

    for layout in ("padded", "shared", "packed"):
        batch = collate(trees, layout=layout, pad_id=stop, row_tokens=256)
        targets = batch.target[batch.entry_slot]
        assert [int(targets[batch.entry_path == path][-1]) for path in range(4)] == [stop] * 4


def test_t7_context_tokens_are_attended_although_they_are_not_scored() -> None:
    tree = tokenize_trajectories([tool_row()], Family(TOOLS).tokenizer(), CONFIG).trees[0]

    mask = collate([tree], layout="shared", pad_id=0).attention_mask()

    assert mask is not None
    assert mask[0, 0, -1].all()
    assert not all(tree.path(0).scored)


@every_family
def test_t9_prompt_tokens_are_never_scored_on_either_side(name: str) -> None:
    tokenizer = FAMILIES[name].tokenizer()
    rows = [chat_pair(prompt=prompt) for prompt in ("short", "a very different, longer prompt")]

    trees = tokenize_pairs(rows, tokenizer, CONFIG).trees

    for index in range(2):
        assert scored_ids(trees[0].path(index)) == scored_ids(trees[1].path(index))
        assert not any(
            trees[0].path(index).scored[: len(tokenize_prompts([rows[0].prompt], tokenizer)[0])]
        )


def test_t9_the_sum_is_over_reply_tokens_and_nothing_else() -> None:
    """Compare the slots' sum with log p(prompt + reply) - log p(prompt) under a real model."""
    import torch

    tokenizer, model = tiny_tokenizer(), tiny_policy()
    tree = tokenize_pairs([chat_pair()], tokenizer, CONFIG).trees[0]
    prompt = tokenize_prompts([chat_pair().prompt], tokenizer)[0]

    def log_probability(ids: tuple[int, ...]) -> float:
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        return float(logits.gather(1, torch.tensor(ids[1:])[:, None]).sum())

    batch = collate([tree], layout="padded", pad_id=0)
    with torch.no_grad():
        logps = (
            model(batch.input_ids).logits.flatten(0, 1)[batch.predictor].double().log_softmax(-1)
        )
    slots = logps.gather(1, batch.target[:, None])[:, 0]
    for index in range(2):
        total = float(slots[batch.entry_slot[batch.entry_path == index]].sum())
        expected = log_probability(tree.path(index).ids) - log_probability(prompt)
        assert math.isclose(total, expected, abs_tol=1e-3)
