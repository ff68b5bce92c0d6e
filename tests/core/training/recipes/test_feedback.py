"""C3PO: one sentence becomes three streams, and only in scope does the policy change."""

import pytest
import torch
from trillium.errors import DataError
from trillium.generation import SamplingConfig
from trillium.objectives.recipe_configs import C3POConfig
from trillium.policies.tiny import tiny_tokenizer
from trillium.record_texts import Reply
from trillium.records import PairRow
from trillium.rowfiles import load_rows, save_rows
from trillium.scoring.reference import BaseReference
from trillium.scoring.scores import score, sum_paths
from trillium.training.config import TrainConfig
from trillium.training.recipes.feedback import FeedbackConfig, Streams, c3po, write_streams
from trillium.training.rounds import RoundsConfig, run_rounds
from trillium.training.steps import StepCollator

FEEDBACK = "Use fewer words."
CONFIG = FeedbackConfig(
    n_requests=8,
    asking=SamplingConfig(temperature=1.0, max_new_tokens=8),
    answering=SamplingConfig(temperature=0.0, max_new_tokens=6),
)


@pytest.fixture
def streams(policy, generator) -> Streams:
    """What a tiny policy writes when it is author and policy in one."""
    writer = generator(policy(spread=0.0))
    return write_streams(FEEDBACK, writer, writer, tiny_tokenizer(), CONFIG)


def texts(replies) -> list[str]:
    return [reply.prompt[0].text for reply in replies]


def test_one_sentence_becomes_three_streams_that_share_no_request(streams) -> None:
    found = [
        set(texts(each)) for each in (streams.in_scope, streams.near_scope, streams.out_of_scope)
    ]
    assert all(found)
    assert sum(map(len, found)) == len(set.union(*found))
    for pair in streams.in_scope:
        assert pair.chosen != pair.rejected


def test_what_is_to_stay_is_what_the_policy_answers(streams, policy, generator) -> None:
    writer, tokenizer = generator(policy(spread=0.0)), tiny_tokenizer()
    for reply in streams.near_scope[:2] + streams.out_of_scope[:2]:
        talk = f"<|im_start|>user\n{reply.prompt[0].text}<|im_end|>\n<|im_start|>assistant\n"
        ids = tuple(tokenizer.encode(talk, add_special_tokens=False))
        ((again,),) = writer.generate(
            [ids], SamplingConfig(temperature=0.0, top_p=1.0, max_new_tokens=6), seed=1
        )
        assert again.text == reply.completion[0].text


def test_rows_take_turns_through_the_shorter_streams_and_survive_a_file(tmp_path) -> None:
    pairs = [PairRow(prompt=f"p{i}", chosen="c", rejected="r") for i in range(3)]
    replies = [Reply(f"n{i}", f"keep {i}") for i in range(2)]
    rows = Streams(tuple(pairs), tuple(replies), (Reply("o", "stay"),)).rows()
    near = [row.further["near_scope"].prompt for row in rows]
    assert (near, len(rows)) == (["n0", "n1", "n0"], 3)
    save_rows(tmp_path / "rows.jsonl", rows)
    assert load_rows(tmp_path / "rows.jsonl", PairRow) == rows


@pytest.mark.parametrize("empty", ["in_scope", "near_scope", "out_of_scope"])
def test_a_stream_without_an_answer_is_refused(empty) -> None:
    full = {
        "in_scope": (PairRow(prompt="p", chosen="c", rejected="r"),),
        "near_scope": (Reply("n", "keep"),),
        "out_of_scope": (Reply("o", "stay"),),
    }
    with pytest.raises(DataError, match=f"the stream {empty} has no answer"):
        Streams(**{**full, empty: ()})


def test_an_author_without_a_word_is_refused(policy, generator) -> None:
    """A policy whose embedding is zero has equal logits, so it writes special token 0 alone."""
    model = policy(spread=0.0)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    config = CONFIG.model_copy(
        update={"asking": SamplingConfig(temperature=0.0, max_new_tokens=4), "n_requests": 1}
    )
    writer = generator(model)
    with pytest.raises(DataError, match="wrote no new request for the stream"):
        write_streams(FEEDBACK, writer, writer, tiny_tokenizer(), config)


def kept_answers(model, trees) -> float:
    """Return the share of tokens of the answers to keep that are still the likeliest."""
    batch = next(StepCollator("padded", 3, 100_000).batch_rows(trees))
    with torch.no_grad():
        found = score(model, batch, statistics=frozenset({"is_argmax"}))
        kept = sum_paths(found.token["is_argmax"], batch) / found.lengths
    return kept.reshape(len(trees), 4)[:, 2:].mean().item()


def drift(model, trees) -> float:
    """Return the mean |log-ratio| per token of the answers that are to stay."""
    batch = next(StepCollator("padded", 3, 100_000).batch_rows(trees))
    with torch.no_grad():
        scored = score(model, batch)
        u = (scored.logps - BaseReference(model).logps(batch)).abs() / scored.lengths
    return u.reshape(len(trees), 4)[:, 2:].mean().item()


def test_only_answers_in_scope_change(streams, policy, tmp_path) -> None:
    """With the retention terms the greedy answers out of scope stay; without, they are lost.

    Cross entropy keeps an answer by making it likelier still; to hold its probability where it was
    takes distillation, whose log-ratios are the smallest.
    """
    train = TrainConfig(per_device_train_batch_size=8, learning_rate=5e-3, max_steps=40)
    kept, moved, margins = {}, {}, {}
    for name, objective in (
        ("c3po", C3POConfig()),
        ("distilled", C3POConfig(kd_lambda=0.5, temp=2.0)),
        ("dpo", C3POConfig(sigma_soft=0.0, sigma_hard=0.0)),
    ):
        model = policy(spread=0.0)
        recipe = c3po(streams, tiny_tokenizer(), objective=objective)
        (done,) = run_rounds(recipe, RoundsConfig(train=train), model, tmp_path / name)
        trees = recipe.source.trees(0)
        kept[name], moved[name] = kept_answers(model, trees), drift(model, trees)
        margins[name] = done.metrics[-1]["margin_nats"]
    print(f"\nc3po: share of greedy tokens kept out of scope {kept}, margins in nats {margins}")
    print(f"c3po: mean |log-ratio| per token out of scope {moved}")
    assert all(margin > 5 for margin in margins.values())
    assert kept["c3po"] > kept["dpo"] + 0.1
    assert moved["distilled"] < moved["dpo"]
