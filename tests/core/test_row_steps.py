"""Paths cut into steps, replies beside a pair, and prompts that differ: what richer rows become."""

import pytest
from tokenizers import models
from trillium.errors import DataError
from trillium.layouts import collate
from trillium.policies.tiny import tiny_tokenizer
from trillium.record_texts import Reply
from trillium.records import CompletionRow, PairRow, RankingRow, TrajectoryRow
from trillium.rowfiles import load_rows, parse_rows, save_rows
from trillium.search_records import Step, TreeRow
from trillium.tokenize import (
    TokenizeConfig,
    tokenize_completions,
    tokenize_pairs,
    tokenize_trajectories,
    tokenize_trees,
)
from trillium.trees import TokenPath, TokenTree

TOKENIZER = tiny_tokenizer()
CONFIG = TokenizeConfig()


def pair(**record: object) -> PairRow:
    return parse_rows([record], PairRow, where="rows")[0]


def scored_text(path: TokenPath) -> str:
    return TOKENIZER.decode([i for i, s in zip(path.ids, path.scored, strict=True) if s])


def test_replies_beside_a_pair_answer_its_prompt_unless_they_name_their_own() -> None:
    row = pair(prompt="p ", chosen="c", rejected="r", gold="g", target="t", target_prompt="q ")
    assert row.further == {"target": Reply("q ", "t"), "gold": Reply("p ", "g")}
    assert row.rejected_prompt is None
    assert pair(prompt="p ", chosen="c", rejected="r", rejected_prompt="x ").rejected_prompt == "x "


def test_numbers_and_objects_under_those_names_stay_what_they_were() -> None:
    row = pair(prompt="p ", chosen="c", rejected="r", gold=3, rationale={"a": 1}, target=[])
    assert row.further == {}
    assert row.columns == {"gold": 3.0}


def test_a_prompt_of_another_kind_is_refused() -> None:
    talk = [{"role": "user", "content": "x"}]
    with pytest.raises(DataError, match='"prompt" and "rejected_prompt" are a string and a conv'):
        pair(prompt="p", chosen="c", rejected="r", rejected_prompt=talk)


def test_rows_with_replies_survive_a_file(tmp_path) -> None:
    rows = [
        pair(
            prompt="p ", chosen="c", rejected="r", gold="g", gold_prompt="q ", rejected_prompt="x"
        ),
        pair(prompt="p ", chosen="c", rejected="r", gold="h"),
    ]
    for name in ("rows.jsonl", "rows.parquet"):
        save_rows(tmp_path / name, rows)
        assert load_rows(tmp_path / name, PairRow) == rows


def test_a_pair_without_replies_keeps_the_name_it_had() -> None:
    assert pair(prompt="p", chosen="c", rejected="r").id == "eeb4bb2958cfa071"


def test_further_replies_become_further_paths_under_their_own_prompts() -> None:
    row = pair(prompt="p ", chosen="c", rejected="r", gold="g", gold_prompt="p, ")
    (tree,) = tokenize_pairs([row], TOKENIZER, CONFIG, further=["gold"]).trees
    assert [TOKENIZER.decode(tree.path(k).ids) for k in range(3)] == [
        "p c<|im_end|>",
        "p r<|im_end|>",
        "p, g<|im_end|>",
    ]
    assert scored_text(tree.path(2)) == "g<|im_end|>"
    assert tree.steps == ()


def test_prompts_that_begin_differently_get_a_common_first_token() -> None:
    row = pair(prompt="one ", chosen="c", rejected="r", rejected_prompt="two ")
    (tree,) = tokenize_pairs([row], TOKENIZER, CONFIG).trees
    assert [TOKENIZER.decode(tree.path(k).ids) for k in range(2)] == [
        "<|im_end|>one c<|im_end|>",
        "<|im_end|>two r<|im_end|>",
    ]
    assert not tree.path(0).scored[0]


def test_a_scored_prompt_is_a_step_of_its_own_without_its_first_token() -> None:
    row = pair(prompt="ask ", chosen="yes", rejected="no", rejected_prompt="ask! ")
    (tree,) = tokenize_pairs([row], TOKENIZER, CONFIG, scores_prompt=True).trees
    assert scored_text(tree.path(0)) == "sk yes<|im_end|>"
    assert tree.steps == ((3, 4), (4, 3))


def search_row() -> TreeRow:
    steps = (Step("one.", -1), Step("two.", 0), Step("given", 0, False), Step("three", 2))
    return TreeRow(prompt="q", steps=steps, leaves=(1, 3), labels={"label": (1.0, 0.0)})


def test_a_search_row_counts_the_tokens_of_every_scored_step() -> None:
    """The end of a reply belongs to its last step; what the search was given is no step."""
    (tree,) = tokenize_trees([search_row()], TOKENIZER, CONFIG).trees
    assert tree.steps == ((4, 5), (4, 6))
    for layout in ("padded", "shared", "packed"):
        batch = collate([tree, tree], layout=layout, pad_id=3, row_tokens=100)
        assert batch.steps == ((4, 5), (4, 6)) * 2


def test_a_path_that_is_cut_keeps_the_steps_that_are_left() -> None:
    config = TokenizeConfig(max_length=6, truncation="keep_start")
    (tree,) = tokenize_trees([search_row()], TOKENIZER, config).trees
    assert tree.steps == ((4, 1), (4, 0))


def test_steps_that_do_not_add_up_are_refused() -> None:
    path = TokenPath((1, 5, 6), (False, True, True))
    with pytest.raises(DataError, match=r"steps \(\(1,\),\) do not add up to the scored tokens"):
        TokenTree.from_paths("t", [path], steps=((1,),))


def test_supervised_rows_make_trees_without_a_label() -> None:
    rows = parse_rows(
        [{"prompt": "p ", "completion": "c", "aligned_mean_logps": -1.5}], CompletionRow, where="r"
    )
    (tree,) = tokenize_completions(rows, TOKENIZER, CONFIG).trees
    assert (tree.labels, tree.columns) == ({}, {"aligned_mean_logps": -1.5})
    assert scored_text(tree.path(0)) == "c<|im_end|>"


def test_a_ranking_may_come_with_labels_alone() -> None:
    record = {"prompt": "p", "completions": ["a", "b"], "labels": [0.9, 0.1]}
    (row,) = parse_rows([record], RankingRow, where="rows")
    assert row.labels == {"label": (0.9, 0.1)}
    assert row.to_record()["labels"] == [0.9, 0.1]


def test_replies_start_at_the_same_token_when_their_prompt_is_scored_too() -> None:
    """With a merge of "p" and "c", "pp"+"c" becomes p,pc: both replies start after the first p."""
    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    vocabulary["pc"] = len(vocabulary)
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocabulary, merges=[("p", "c")])
    row = pair(prompt="qpp", chosen="c", rejected="d")
    dataset = tokenize_pairs([row], tokenizer, CONFIG, scores_prompt=True)
    assert dataset.report.n_merged_boundaries == 1
    assert dataset.trees[0].steps == ((1, 2), (1, 3))


@pytest.mark.parametrize(
    ("max_length", "kept", "steps"),
    [(6, "k yes<|im_end|>", ((1, 4), (1, 3))), (5, " yes<|im_end|>", ((0, 4), (0, 3)))],
)
def test_keep_end_cuts_a_scored_prompt_and_takes_its_loss_off_the_first_step(
    max_length, kept, steps
) -> None:
    row = pair(prompt="ask ", chosen="yes", rejected="no")
    config = TokenizeConfig(max_length=max_length, truncation="keep_end")
    (tree,) = tokenize_pairs([row], TOKENIZER, config, scores_prompt=True).trees
    assert TOKENIZER.decode(tree.path(0).ids) == kept
    assert tree.steps == steps
    assert not tree.path(0).scored[0]


@pytest.mark.parametrize(("truncation", "max_length"), [("keep_end", 4), ("keep_start", 4)])
def test_a_scored_prompt_does_not_stand_for_a_reply_that_would_be_cut(
    truncation, max_length
) -> None:
    row = pair(prompt="ask ", chosen="yes", rejected="no")
    config = TokenizeConfig(max_length=max_length, truncation=truncation)
    with pytest.raises(DataError, match="1 too long"):
        tokenize_pairs([row], TOKENIZER, config, scores_prompt=True)


def test_the_steps_of_a_trajectory_are_its_scored_turns() -> None:
    """The second turn scores two ranges that overlap; each token counts once."""
    talk = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "ab", "scored": True},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "cdef", "scored": [[0, 2], [1, 3]]},
    ]
    (row,) = parse_rows([{"messages": talk, "reward": 1}], TrajectoryRow, where="rows")
    (tree,) = tokenize_trajectories([row], TOKENIZER, CONFIG).trees
    assert tree.steps == ((3, 5),)
    config = TokenizeConfig(scored_turns="explicit")
    (tree,) = tokenize_trajectories([row], TOKENIZER, config).trees
    assert tree.steps == ((3, 2, 1),)


def test_a_search_path_that_ends_in_a_stop_token_and_a_line_break_gets_no_second() -> None:
    steps = (Step("one.", -1), Step("two.<|im_end|>\n", 0))
    row = TreeRow(prompt="q", steps=steps, leaves=(1,))
    (tree,) = tokenize_trees([row], TOKENIZER, CONFIG).trees
    assert scored_text(tree.path(0)) == "one.two.<|im_end|>"
    assert tree.steps == ((4, 5),)


@pytest.mark.parametrize(
    "steps",
    [
        (Step("one<|im_end|>two", -1),),
        (Step("one<|im_end|>", -1), Step("two", 0)),
        (Step("one<|im_", -1), Step("end|>two", 0)),
    ],
)
def test_a_search_path_in_which_the_policy_writes_on_behind_its_stop_token_is_left_out(
    steps: tuple[Step, ...],
) -> None:
    turns = (Step("a<|im_end|>", -1), Step("<|im_start|>user", 0, False), Step("b<|im_end|>", 1))
    rows = [
        TreeRow(prompt="q", steps=each, leaves=(len(each) - 1,), id=name)
        for each, name in ((steps, "broken"), (turns, "turns"))
    ]
    dataset = tokenize_trees(rows, TOKENIZER, CONFIG)
    assert dataset.report.dropped == {"stop token inside a reply": ("broken",)}
    assert scored_text(dataset.trees[0].path(0)) == "a<|im_end|>b<|im_end|>"
