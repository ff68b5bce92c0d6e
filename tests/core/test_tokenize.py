"""Tests T1 to T10 name the traps of preference tokenisation that other trainers fell into."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast
from trillium.errors import DataError
from trillium.fields import Message
from trillium.layouts import collate
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.records import LabelledRow, PairRow, RankingRow, TrajectoryRow
from trillium.rowfiles import load_rows
from trillium.search_records import Step, TreeRow
from trillium.tokenize import (
    TokenizeConfig,
    TokenizedDataset,
    tokenize_labelled,
    tokenize_pairs,
    tokenize_prompts,
    tokenize_rankings,
    tokenize_trajectories,
    tokenize_trees,
)
from trillium.trees import TokenPath

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n"
    "{{ m.content | trim }}<|turn_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}"
    "{{ raise_exception('no system role here') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "<turn>{{ role }}\n{{ m.content | trim }}</turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
INSTRUCTION = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
# Shows reasoning in the last turn only and puts an empty block where there is none.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% set text = m.content.split('</think>')[-1].lstrip() %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip()"
    " if '</think>' in m.content else '' %}"
    "{% if loop.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ text }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "({{ c.function.arguments | tojson }})</call>{% endfor %}"
    "{% if m.tool_calls and m.no_stop %}<tool_response>"
    "{% else %}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_STOP = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True)
class Family:
    template: str
    special: tuple[str, ...] = ()
    stop: str = "<|im_end|>"
    bos: str | None = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens(list(self.special), special_tokens=True)
        tokenizer.chat_template = self.template
        if self.bos:
            tokenizer.bos_token = self.bos
            add_bos(tokenizer, self.bos)
        if self.template == INSTRUCTION:
            tokenizer.eos_token = self.stop
        return tokenizer


def add_bos(tokenizer: PreTrainedTokenizerFast, bos: str) -> None:
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tokenizer.convert_tokens_to_ids(bos))]
    )


FAMILIES = {
    "chatml": Family(CHATML),
    "headers": Family(
        HEADERS, ("<|header|>", "<|/header|>", "<|turn_end|>"), "<|turn_end|>", "<|endoftext|>"
    ),
    "no_system": Family(NO_SYSTEM, ("<turn>", "</turn>"), "</turn>", "<|endoftext|>"),
    "instruction": Family(INSTRUCTION, ("</s>",), "</s>", "<|endoftext|>"),
    "thinking": Family(THINKING),
    "no_stop": Family(NO_STOP),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, **fields: object) -> Message:
    return Message("assistant", text, fields)


def chat_pair(chosen: str = "yes", rejected: str = "no", prompt: str = "Is it?") -> PairRow:
    return PairRow(
        prompt=(user(prompt),), chosen=(assistant(chosen),), rejected=(assistant(rejected),)
    )


def shown(tokenizer: PreTrainedTokenizerFast, path: TokenPath) -> str:
    """Decode a path with its scored runs in braces, the golden form of a mask."""
    text, inside = "", False
    runs: list[tuple[bool, list[int]]] = []
    for token, scored in zip(path.ids, path.scored, strict=True):
        if not runs or scored != inside:
            runs.append((scored, []))
            inside = scored
        runs[-1][1].append(token)
    for scored, run in runs:
        decoded = tokenizer.decode(run)
        text += "{" + decoded + "}" if scored else decoded
    return text


def masks(tokenizer: PreTrainedTokenizerFast, dataset: TokenizedDataset) -> list[str]:
    tree = dataset.trees[0]
    return [shown(tokenizer, tree.path(index)) for index in range(tree.n_paths)]


def scored_ids(path: TokenPath) -> list[int]:
    return [token for token, scored in zip(path.ids, path.scored, strict=True) if scored]


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


def test_t1_a_stop_token_inside_a_reply_drops_the_row_and_counts_it() -> None:
    rows = [chat_pair("a<|im_end|>b"), chat_pair()]

    report = tokenize_pairs(rows, tiny_tokenizer(), TokenizeConfig()).report

    assert report.n_dropped == {"stop token inside a reply": 1}
    assert report.dropped["stop token inside a reply"] == (rows[0].id,)


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


CONFIG = TokenizeConfig()
REPAIR = TokenizeConfig(on_prefix_violation="repair")


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


def tool_row(**extra: object) -> TrajectoryRow:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    return TrajectoryRow(
        messages=(
            user("1+1"),
            Message("assistant", None, {"tool_calls": [call], **extra}),
            Message("tool", "2", {"name": "add"}),
            assistant("It is 2"),
        )
    )


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
def test_t8_each_mode_scores_its_turns(turns: str, first: str, last: str) -> None:
    tokenizer = tiny_tokenizer()
    config = TokenizeConfig.model_validate({"scored_turns": turns})

    dataset = tokenize_trajectories([TURNS], tokenizer, config)

    assert masks(tokenizer, dataset) == [
        f"<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n{first}\n"
        f"<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n{last}"
    ]


def test_t8_a_trajectory_that_ends_in_a_call_has_no_final_answer() -> None:
    cut = TrajectoryRow(messages=tool_row().messages[:2])
    config = TokenizeConfig(scored_turns="final_answer")

    report = tokenize_trajectories([cut, tool_row()], Family(TOOLS).tokenizer(), config).report

    assert report.n_dropped == {"no final answer": 1}


def test_t8_turns_of_the_prompt_are_context() -> None:
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
