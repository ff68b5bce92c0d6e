"""SRPO: the reviser learns to revise, and revising helps where it has learned."""

import pytest
import torch
from trillium.errors import DataError
from trillium.generation import SamplingConfig
from trillium.objectives.recipe_configs import SRPOConfig
from trillium.policies.tiny import tiny_tokenizer
from trillium.records import PairRow
from trillium.scoring.reference import BaseReference
from trillium.scoring.scores import score
from trillium.training.config import TrainConfig
from trillium.training.recipes.revision import improve, srpo
from trillium.training.rounds import RoundsConfig, run_rounds
from trillium.training.steps import StepCollator

OBJECTIVE = SRPOConfig(beta=0.3, revision="Better:")
WORDS = ("red", "green", "blue", "black", "white", "grey")


def rows(**columns: float) -> list[PairRow]:
    """Prefer a's to b's, whatever the prompt."""
    return [
        PairRow(prompt=f"{word}: ", chosen="a" * n, rejected="b" * n, columns=columns)
        for word in WORDS
        for n in (2, 3)
    ]


def logratios(model, trees) -> torch.Tensor:
    """Return the log-ratio of every path, tree by tree."""
    batch = next(StepCollator("padded", 3, 100_000).batch_rows(trees))
    with torch.no_grad():
        found = score(model, batch).logps - BaseReference(model).logps(batch)
    return found.reshape(len(trees), -1)


def test_a_pair_becomes_six_paths_in_three_contexts() -> None:
    recipe = srpo(rows(p_win=1.0), tiny_tokenizer(), objective=OBJECTIVE)
    tree = recipe.source.trees(0)[0]
    tokenizer = tiny_tokenizer()
    whole = [tokenizer.decode(tree.path(place).ids) for place in range(6)]
    assert whole == [
        "red: aa<|im_end|>",
        "red: bb<|im_end|>",
        "red: aa\n\nBetter:\n\naa<|im_end|>",
        "red: aa\n\nBetter:\n\nbb<|im_end|>",
        "red: bb\n\nBetter:\n\naa<|im_end|>",
        "red: bb\n\nBetter:\n\nbb<|im_end|>",
    ]
    assert [tree.path(place).n_scored for place in range(6)] == [3] * 6


def test_a_row_without_a_probability_is_refused() -> None:
    with pytest.raises(DataError, match=r'field "p_win" is missing .objective srpo needs it'):
        srpo(rows(), tiny_tokenizer())


def test_the_reviser_ends_where_the_win_probabilities_say(policy, tmp_path) -> None:
    """P = 0.9: improving on the rejected is worth (P - 1/2)/beta nats, spoiling costs as much."""
    model = policy(spread=0.0)
    recipe = srpo(rows(p_win=0.9), tiny_tokenizer(), objective=OBJECTIVE)
    train = TrainConfig(per_device_train_batch_size=12, learning_rate=1e-2, max_steps=60)
    (done,) = run_rounds(recipe, RoundsConfig(train=train), model, tmp_path)
    assert done.metrics[-1]["loss"] < 0.05 * done.metrics[0]["loss"]
    u = logratios(model, recipe.source.trees(0)).mean(0)
    improved, spoiled = (u[4] - u[5]).item(), (u[3] - u[2]).item()
    goal = (0.9 - 0.5) / OBJECTIVE.beta
    print(
        f"\nsrpo: gain of an improvement {improved:.2f}, of a spoiling {spoiled:.2f} (±{goal:.2f})"
    )
    assert improved == pytest.approx(goal, abs=0.4)
    assert spoiled == pytest.approx(-goal, abs=0.4)
    # The generator fits what its reviser implies: r_w - r_l + r_w|l - r_l|w = (2P - 1)/beta.
    implied = (u[0] - u[1] + u[4] - u[3]).item()
    assert implied == pytest.approx(0.8 / OBJECTIVE.beta, abs=0.5)


def shares_of_chosen(model, trees) -> list[float]:
    """Return how likely the chosen response is as draft, as first and as second revision.

    Exact, when the policy writes one of the two responses: a revision follows either draft.
    """
    batch = next(StepCollator("padded", 3, 100_000).batch_rows(trees))
    with torch.no_grad():
        logps = score(model, batch).logps.reshape(len(trees), 6)
    share, given_chosen, given_rejected = (
        (logps[:, k] - logps[:, k + 1]).sigmoid() for k in (0, 2, 4)
    )
    found = [share.mean().item()]
    for _ in range(2):
        share = share * given_chosen + (1 - share) * given_rejected
        found.append(share.mean().item())
    return found


def test_training_raises_what_drafts_and_revisions_are_worth(policy, tmp_path) -> None:
    """P = 1: the preferred response becomes likelier as a draft, and likelier still revised."""
    model = policy(spread=0.0)
    recipe = srpo(rows(p_win=1.0), tiny_tokenizer(), objective=OBJECTIVE)
    trees = recipe.source.trees(0)
    before = shares_of_chosen(model, trees)
    train = TrainConfig(per_device_train_batch_size=12, learning_rate=1e-2, max_steps=60)
    run_rounds(recipe, RoundsConfig(train=train), model, tmp_path)
    after = shares_of_chosen(model, trees)
    print(f"\nsrpo: share of the preferred in draft, revision, revision: {before} -> {after}")
    # What is left of the other response falls below 60 % of what it was, at every turn.
    assert all(1 - new < 0.6 * (1 - old) for old, new in zip(before, after, strict=True))


def test_every_prompt_has_its_own_drafts_in_turn(policy, generator) -> None:
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=2)
    model = policy()
    drafts = improve(["p: ", "q: "], generator(model), tiny_tokenizer(), sampling, n_revisions=1)
    alone = improve(["q: "], generator(model), tiny_tokenizer(), sampling, n_revisions=1)
    assert [len(each) for each in drafts] == [2, 2]
    assert drafts[1] == alone[0]
    # The likeliest token alone is left at any temperature.
    hot = SamplingConfig(temperature=5.0, top_p=1.0, top_k=1, max_new_tokens=2)
    assert drafts == improve(["p: ", "q: "], generator(model), tiny_tokenizer(), hot, n_revisions=1)
