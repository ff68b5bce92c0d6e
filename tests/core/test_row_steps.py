"""Paths cut into steps, replies beside a pair, and prompts that differ: what richer rows become."""

import pytest
from trillium.errors import DataError
from trillium.layouts import collate
from trillium.policies.tiny import tiny_tokenizer
from trillium.record_texts import Reply
from trillium.records import CompletionRow, PairRow, RankingRow
from trillium.rowfiles import load_rows, parse_rows, save_rows
from trillium.search_records import Step, TreeRow
from trillium.tokenize import TokenizeConfig, tokenize_completions, tokenize_pairs, tokenize_trees
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
