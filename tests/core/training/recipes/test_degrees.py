"""SPO: negatives by degree from the policy's text, and a head that tells them apart."""

import pytest
import torch
from trillium.generation import Completion, SamplingConfig
from trillium.objectives.recipe_configs import DegreeConfig
from trillium.policies.tiny import tiny_tokenizer
from trillium.training.config import TrainConfig
from trillium.training.recipes.degrees import CountKeyPhrases, DegreeNegatives, spo_degree
from trillium.training.recipes.key_phrases import delete_phrases, key_phrases
from trillium.training.round_rows import Candidates, Prompt, read_trees
from trillium.training.rounds import RoundsConfig, run_rounds

TEXT = "Compact token trees share prefixes. The trees are small, and prefixes cost time."


def test_phrases_are_runs_of_words_weighed_by_the_company_they_keep() -> None:
    """degree/frequency: compact 3, token 3, trees (3+1)/2, share 2, prefixes (2+3)/2."""
    assert key_phrases(TEXT) == (
        "prefixes cost time",  # 2.5 + 3 + 3
        "Compact token trees",  # 3 + 3 + 2
        "share prefixes",  # 2 + 2.5
        "trees",  # 2
        "small",  # 1
    )


def test_a_phrase_is_deleted_as_whole_words_alone() -> None:
    assert delete_phrases(TEXT, ("trees", "small")) == (
        "Compact token share prefixes. The are , and prefixes cost time."
    )
    assert delete_phrases("treeshade trees", ("trees",)) == "treeshade"


def test_accents_vowel_signs_and_inner_apostrophes_are_parts_of_words() -> None:
    """The second is written with an accent of its own; stop words are found in contractions."""
    assert key_phrases("It's a fine day; isn't it? You\u2019ll see.") == ("fine day", "see")
    assert key_phrases("cafe\u0301, \u0939\u093f\u0928\u094d\u0926\u0940") == (
        "cafe\u0301",
        "\u0939\u093f\u0928\u094d\u0926\u0940",
    )
    assert key_phrases("O'Neill said 'stop'") == ("O'Neill said", "stop")


@pytest.mark.parametrize(
    ("text", "phrase", "left"),
    [
        ("it's fine", "s", "it's fine"),
        ("it's fine", "it", "it's fine"),
        ("cafe\u0301 cafe", "cafe", "cafe\u0301"),
        ("\u0928\u0940 \u0928", "\u0928", "\u0928\u0940"),
        ("say 'stop' now", "stop", "say '' now"),
    ],
)
def test_a_part_of_a_word_is_not_deleted(text: str, phrase: str, left: str) -> None:
    assert delete_phrases(text, (phrase,)) == left


def test_text_without_words_has_no_phrase() -> None:
    assert key_phrases("... 42 -- the of") == ()


def complete(text: str, *, ends: bool = True) -> Completion:
    tokenizer = tiny_tokenizer()
    ids = (*tokenizer.encode(text, add_special_tokens=False), *((2,) if ends else ()))
    return Completion(ids, text, "stop" if ends else "length")


def test_each_degree_lacks_one_phrase_more() -> None:
    prompt = Prompt("p", (1, 5), "p")
    rule = DegreeNegatives(tiny_tokenizer(), 3)
    completions = (complete("no phrase but one"), complete("old stone, wet sand, hot sun"))
    scores = tuple(CountKeyPhrases().score(prompt, completions))
    assert scores == (2.0, 3.0)
    trees = rule.select(Candidates(prompt, completions, scores), seed=0)
    assert [tree.columns["degree_label"] for tree in trees] == [0.0, 1.0]
    decode = tiny_tokenizer().decode
    assert decode(trees[0].path(0).ids[2:]) == "old stone, wet sand, hot sun<|im_end|>"
    assert [decode(tree.path(1).ids[2:]) for tree in trees] == [
        ", wet sand, hot sun<|im_end|>",
        ", , hot sun<|im_end|>",
    ]
    assert trees[0].path(1).scored[:3] == (False, False, True)


def test_a_form_ends_as_the_whole_does() -> None:
    candidates = Candidates(
        Prompt("p", (1,), ""), (complete("old stone, sun", ends=False),), (2.0,)
    )
    (first, *_) = DegreeNegatives(tiny_tokenizer(), 1).select(candidates, seed=0)
    assert first.path(1).ids[-1] != 2


def test_text_with_nothing_to_delete_makes_no_pair() -> None:
    candidates = Candidates(Prompt("p", (1,), ""), (complete("42"),), (0.0,))
    assert DegreeNegatives(tiny_tokenizer(), 3).select(candidates, seed=0) == []


def test_the_head_learns_the_degrees_and_the_policy_to_prefer_the_whole(
    prompts, policy, generator, tmp_path
):
    """On its own text: every pair is in order, and the loss falls below that of half a guess."""
    model = policy(spread=0.0)
    sampling = SamplingConfig(n_samples=8, temperature=1.0, top_p=1.0, top_k=12, max_new_tokens=16)
    objective = DegreeConfig(gamma=1.0, n_degrees=2)
    recipe = spo_degree(prompts, sampling, tiny_tokenizer(), objective=objective)
    train = TrainConfig(per_device_train_batch_size=16, learning_rate=2e-2, max_steps=40)
    (done,) = run_rounds(
        recipe, RoundsConfig(train=train), model, tmp_path, generator=generator(model)
    )
    degrees = [tree.columns["degree_label"] for tree in read_trees(done.trees)]
    assert set(degrees) == {0.0, 1.0}
    ln2 = torch.tensor(2.0).log().item()
    assert done.metrics[0]["loss"] == pytest.approx(2 * ln2, abs=1e-4)
    print(f"\nspo_degree: {len(degrees)} pairs, loss {done.metrics[-1]['loss']:.3f}")
    assert done.metrics[-1]["rewards/accuracies"] == 1.0
    assert done.metrics[-1]["loss"] < 0.5 * ln2
    assert (done.trained / "heads.safetensors").is_file()
