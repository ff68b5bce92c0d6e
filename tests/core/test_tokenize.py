"""What tokenisation keeps, drops, cuts, counts and names; T10 is the tenth of its known traps."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from trillium.errors import DataError
from trillium.fields import Message
from trillium.layouts import collate
from trillium.policies.tiny import tiny_tokenizer
from trillium.records import LabelledRow, PairRow, RankingRow
from trillium.rowfiles import load_rows
from trillium.search_records import Step, TreeRow
from trillium.tokenize import (
    TokenizeConfig,
    tokenize_labelled,
    tokenize_pairs,
    tokenize_prompts,
    tokenize_rankings,
    tokenize_trees,
)

from .chat_rows import CONFIG, FAMILIES, assistant, chat_pair, masks, shown, user

letters = st.text(st.sampled_from("ab \n<é"), max_size=8)


@pytest.mark.property
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(letters, letters, letters), min_size=1, max_size=4),
    st.one_of(st.none(), st.integers(2, 60)),
    st.sampled_from(["drop", "keep_start", "keep_end"]),
    st.sampled_from([*FAMILIES, "plain"]),
)
def test_t10_any_rows_and_limit_give_scored_tokens_and_counts_that_add_up(
    drawn: list[tuple[str, str, str]], max_length: int | None, truncation: str, name: str
) -> None:
    config = TokenizeConfig.model_validate(
        {"max_length": max_length, "truncation": truncation, "on_prefix_violation": "repair"}
    )
    if name == "plain":
        tokenizer = FAMILIES["headers"].tokenizer()
        rows = [PairRow(prompt=p, chosen=c, rejected=r) for p, c, r in drawn]
    else:
        tokenizer = FAMILIES[name].tokenizer()
        rows = [chat_pair(c, r, p) for p, c, r in drawn]
    try:
        dataset = tokenize_pairs(rows, tokenizer, config)
    except DataError as error:
        if "none of" not in str(error):
            raise
        return

    report = dataset.report
    assert report.n_rows == len(rows)
    assert report.n_kept == len(dataset.trees) == len(rows) - sum(report.n_dropped.values())
    paths = [tree.path(index) for tree in dataset.trees for index in range(2)]
    assert all(path.n_scored > 0 for path in paths)
    assert all(max_length is None or len(path.ids) <= max_length for path in paths)
    assert all(not path.scored[0] for path in paths)
    assert report.n_scored_tokens == sum(path.n_scored for path in paths)
    assert report.n_tokens == sum(tree.n_tokens for tree in dataset.trees)
    if max_length is None or truncation == "drop":
        assert report.n_truncated == 0
    batch = collate(dataset.trees, layout="padded", pad_id=tokenizer.pad_token_id)
    assert len(batch.entry_slot) == report.n_scored_tokens


def test_t10_every_policy_says_what_it_did() -> None:
    rows = [
        PairRow(id="short", prompt="pppp", chosen="cc", rejected="rr"),
        PairRow(id="long", prompt="p" * 12, chosen="c" * 5, rejected="rr"),
        PairRow(id="huge", prompt="p" * 5, chosen="c" * 20, rejected="r"),
        PairRow(id="twins", prompt="pp", chosen="cc", rejected="cc"),
    ]
    tokenizer = tiny_tokenizer()

    def outcome(policy: str) -> tuple[int, dict[str, tuple[str, ...]]]:
        config = TokenizeConfig.model_validate({"max_length": 15, "truncation": policy})
        report = tokenize_pairs(rows, tokenizer, config).report
        return report.n_truncated, dict(report.dropped)

    assert outcome("drop") == (0, {"too long": ("long", "huge"), "identical": ("twins",)})
    assert outcome("keep_start") == (2, {"identical": ("twins",)})
    assert outcome("keep_end") == (1, {"too long": ("huge",), "identical": ("twins",)})


def test_keep_end_cuts_the_prompt_of_both_sides_alike_and_keeps_bos() -> None:
    tokenizer = FAMILIES["headers"].tokenizer()
    row = PairRow(prompt="abcdef", chosen="xyz", rejected="x")
    config = TokenizeConfig(max_length=8, truncation="keep_end")

    dataset = tokenize_pairs([row], tokenizer, config)

    assert masks(tokenizer, dataset) == [
        "<|endoftext|>def{xyz<|im_end|>}",
        "<|endoftext|>def{x<|im_end|>}",
    ]


def test_no_row_left_says_why() -> None:
    config = TokenizeConfig(max_length=4)

    with pytest.raises(
        DataError, match=r"none of 2 rows is left \(2 too long, first \w{16}\); raise max_length"
    ):
        tokenize_pairs([chat_pair(), chat_pair("other")], tiny_tokenizer(), config)


def test_a_tokenizer_without_template_is_one_clear_sentence() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None

    with pytest.raises(DataError, match="has no chat template, but the rows are conversations"):
        tokenize_pairs([chat_pair(), chat_pair("other")], tokenizer, CONFIG)


def test_every_row_that_a_template_refuses_is_named() -> None:
    system = Message("system", "be nice")
    rows = [
        PairRow(
            id=name,
            prompt=(system, user("a")),
            chosen=(assistant("b"),),
            rejected=(assistant("c"),),
        )
        for name in ("first", "second")
    ]

    with pytest.raises(DataError, match=r"row first, second: .*no system role here"):
        tokenize_pairs(rows, FAMILIES["no_system"].tokenizer(), CONFIG)


def test_tokens_that_merge_over_the_prompt_end_are_counted_and_shared_fairly() -> None:
    """With a merge of "p" and "c", "pp"+"c" becomes p,pc: both replies start after the first p."""
    tokenizer = merging_tokenizer()
    row = PairRow(prompt="pp", chosen="c", rejected="d")

    dataset = tokenize_pairs([row], tokenizer, CONFIG)

    assert dataset.report.n_merged_boundaries == 1
    assert masks(tokenizer, dataset) == ["p{pc<|im_end|>}", "p{pd<|im_end|>}"]


def merging_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import models

    tokenizer = tiny_tokenizer()
    vocabulary = tokenizer.get_vocab()
    vocabulary["pc"] = len(vocabulary)
    tokenizer.backend_tokenizer.model = models.BPE(vocab=vocabulary, merges=[("p", "c")])
    return tokenizer


def test_steps_have_no_stop_token_and_continue_a_begun_message() -> None:
    tokenizer = tiny_tokenizer()
    row = PairRow(prompt=(user("q"), assistant("Step 1.")), chosen=" Good.", rejected=" Bad.")

    dataset = tokenize_pairs([row], tokenizer, TokenizeConfig(add_eos=False))

    assert masks(tokenizer, dataset)[0] == (
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nStep 1.{ Good.}"
    )


def test_a_string_reply_to_a_conversation_is_an_assistant_turn() -> None:
    tokenizer = tiny_tokenizer()
    row = PairRow(prompt=(user("q"),), chosen="yes", rejected="no")
    messages = PairRow(
        prompt=(user("q"),), chosen=(assistant("yes"),), rejected=(assistant("no"),), id=row.id
    )

    as_string = tokenize_pairs([row], tokenizer, CONFIG)
    as_messages = tokenize_pairs([messages], tokenizer, CONFIG)

    assert as_string.trees == as_messages.trees


def test_labels_and_columns_reach_the_trees() -> None:
    labelled = LabelledRow(prompt="p", completion="c", label=1.0, columns={"weight": 2.0})
    ranking = RankingRow(
        prompt="p", completions=("a", "b", "c"), labels={"reward": (3.0, 1.0, 2.0)}
    )
    tokenizer = tiny_tokenizer()

    one = tokenize_labelled([labelled], tokenizer, CONFIG).trees[0]
    many = tokenize_rankings([ranking], tokenizer, CONFIG).trees[0]

    assert (one.labels, one.columns) == ({"label": (1.0,)}, {"weight": 2.0})
    assert many.labels == {"reward": (3.0, 1.0, 2.0)}
    assert masks(tokenizer, tokenize_rankings([ranking], tokenizer, CONFIG)) == [
        "p{a<|im_end|>}",
        "p{b<|im_end|>}",
        "p{c<|im_end|>}",
    ]


def test_columns_that_some_rows_lack_are_left_out() -> None:
    rows = [
        PairRow(prompt="p", chosen="a", rejected="b", columns={"margin": 1.0, "weight": 1.0}),
        PairRow(prompt="p", chosen="c", rejected="d", columns={"margin": 2.0}),
    ]

    trees = tokenize_pairs(rows, tiny_tokenizer(), CONFIG).trees

    assert [dict(tree.columns) for tree in trees] == [{"margin": 1.0}, {"margin": 2.0}]


def test_search_rows_share_steps_and_mask_what_was_given() -> None:
    tokenizer = tiny_tokenizer()
    row = TreeRow(
        prompt="q:",
        steps=(Step("think", -1), Step("[out]", 0, is_scored=False), Step("A", 1), Step("B", 1)),
        leaves=(2, 3),
        labels={"reward": (1.0, 0.0)},
    )

    tree = tokenize_trees([row], tokenizer, CONFIG).trees[0]

    assert [shown(tokenizer, tree.path(index)) for index in range(2)] == [
        "q:{think}[out]{A<|im_end|>}",
        "q:{think}[out]{B<|im_end|>}",
    ]
    assert tokenizer.decode(tree.nodes[0].ids) == "q:think[out]"
    assert tree.n_tokens == 2 + 5 + 5 + 2 + 2


def test_prompts_for_generation_are_the_context_of_the_trees() -> None:
    for family in FAMILIES.values():
        tokenizer = family.tokenizer()
        prompt = tokenize_prompts([chat_pair().prompt], tokenizer)[0]
        tree = tokenize_pairs([chat_pair()], tokenizer, CONFIG).trees[0]
        assert tree.path(0).ids[: len(prompt)] == prompt


def test_plain_prompts_keep_their_bos() -> None:
    tokenizer = FAMILIES["headers"].tokenizer()

    assert tokenize_prompts(["ab"], tokenizer) == [tuple(tokenizer("ab").input_ids)]


def test_dropped_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    replies = ["short", "l" * 2000, "short"]
    lines = [json.dumps({"prompt": "p", "chosen": "c", "rejected": reply}) for reply in replies]
    path.write_text("\n".join(lines))

    report = tokenize_pairs(load_rows(path, PairRow), tiny_tokenizer(), CONFIG).report

    assert report.dropped == {"too long": (f"{path}:2",)}
    assert report.summary().startswith(
        f"2 of 3 rows kept (dropped: 1 too long, first {path}:2), 0 truncated"
    )


def test_the_report_reads_as_one_line() -> None:
    report = tokenize_pairs([chat_pair()], tiny_tokenizer(), CONFIG).report

    assert report.summary() == (
        "1 of 1 rows kept, 0 truncated, 0 with prefix violations, 0 with merged boundaries; "
        f"{report.n_tokens:,} tokens, 7 scored"
    )


def test_the_real_default_tokenizer_gives_clean_masks() -> None:
    from transformers import AutoTokenizer
    from trillium.assets import ASSETS, cache_folder, fetch_asset, is_cached

    if not is_cached(ASSETS["smollm2-135m-instruct"], cache_folder()):
        pytest.skip("smollm2-135m-instruct is not in the cache; `trillium assets get` fetches it")
    folder = fetch_asset("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    dataset = tokenize_pairs([chat_pair()], tokenizer, CONFIG)

    assert masks(tokenizer, dataset)[0].endswith("<|im_start|>assistant\n{yes<|im_end|>}")
    assert dataset.report.n_prefix_violations == 0
