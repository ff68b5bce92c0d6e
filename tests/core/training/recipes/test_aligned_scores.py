import json
import math
from dataclasses import replace

import pytest
import torch
from trillium.errors import DataError
from trillium.layouts import collate
from trillium.objectives.recipe_configs import PoFTConfig
from trillium.policies.adapters import add_adapter
from trillium.policies.config import LoraSettings
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.records import LabelledRow
from trillium.runs import Run
from trillium.scoring.scores import score
from trillium.tokenize import TokenizeConfig, tokenize_labelled
from trillium.training.align import AlignConfig, align
from trillium.training.config import TrainConfig
from trillium.training.recipes.aligned_scores import (
    COLUMN,
    AlignedModel,
    AlignedScoresConfig,
    score_aligned,
    train_poft,
)

TOKENIZER = tiny_tokenizer()
CONFIG = AlignedScoresConfig(
    train=TrainConfig(per_device_train_batch_size=8, learning_rate=1e-2, num_train_epochs=12),
    micro_tokens=64,
)


def make_rows(n: int, *, seed: int = 0) -> list[LabelledRow]:
    """Return answers that continue their prompt, and as many of random letters."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for index in range(n):
        first, *others = (97 + torch.randint(0, 26, (7,), generator=generator)).tolist()
        prompt = f"{chr(first)}{index}:"
        noise = "".join(map(chr, others[:6]))
        for name, answer in (("clean", chr(first) * 6), ("noise", noise)):
            row = LabelledRow(id=f"{name}-{index}", prompt=prompt, completion=answer, label=1.0)
            rows.append(row)
    return rows


def make_model(seed: int = 0):
    lora = LoraSettings(r=4, alpha=8, dropout=0.0)
    return add_adapter(tiny_policy(seed=seed), lora, base_name="tiny", seed=seed)


def train_supervised(rows, model, output) -> None:
    """Train on likelihood: against scores of 0, as if every target were certain, PoFT is that."""
    scored = [replace(row, columns={COLUMN: 0.0}) for row in rows]
    trees = tokenize_labelled(scored, TOKENIZER, CONFIG.tokenize).trees
    align(AlignConfig(objective=PoFTConfig(), train=CONFIG.train), trees, model, None, output)


@torch.no_grad()
def mean_logps(model, rows) -> torch.Tensor:
    trees = tokenize_labelled(rows, TOKENIZER, TokenizeConfig()).trees
    found = score(model, collate(trees, layout="padded", pad_id=0))
    return found.logps / found.lengths


def aligned(model, identity: str = "aligned") -> AlignedModel:
    return AlignedModel(identity, TOKENIZER, lambda: model)


def test_poft_learns_less_of_the_targets_that_an_aligned_model_finds_unlikely(tmp_path):
    """Half of the targets are noise. The aligned model was trained on other, clean ones."""
    rows, teacher = make_rows(12), make_model()
    clean, noise = rows[0::2], rows[1::2]
    train_supervised(make_rows(12, seed=1)[0::2], teacher, tmp_path / "teacher")
    weighed, plain = make_model(), make_model()
    train_poft(CONFIG, rows, [aligned(teacher)], weighed, TOKENIZER, tmp_path / "poft")
    train_supervised(rows, plain, tmp_path / "plain")
    found = {
        name: [mean_logps(model, some).mean().item() for some in (clean, noise)]
        for name, model in (("teacher", teacher), ("poft", weighed), ("supervised", plain))
    }
    for name, (of_clean, of_noise) in found.items():
        print(f"{name}: {of_clean:.2f} nats per clean token, {of_noise:.2f} per noisy one")
    gaps = {name: of_clean - of_noise for name, (of_clean, of_noise) in found.items()}
    assert gaps["poft"] > gaps["supervised"] + 0.1
    assert found["poft"][0] > found["teacher"][0]


def test_the_column_is_the_mean_over_models_of_means_per_token(tmp_path):
    rows, models = make_rows(6), [make_model(), make_model(seed=1)]
    named = [aligned(model, f"{n}") for n, model in enumerate(models)]
    with Run.open(tmp_path, CONFIG, seed=0) as run:
        scored = score_aligned(CONFIG, rows, named, run)
    expected = torch.stack([mean_logps(model, rows) for model in models]).mean(0)
    found = torch.tensor([row.columns[COLUMN] for row in scored])
    torch.testing.assert_close(found, expected)
    assert [row.id for row in scored] == [row.id for row in rows]


def test_scores_are_computed_once_and_a_kill_changes_no_byte(tmp_path):
    rows, calls = make_rows(12), []

    def load(fails_at: int | None = None):
        def count(*_) -> None:
            calls.append(1)
            if len(calls) == fails_at:
                raise KeyboardInterrupt

        model = make_model()
        model.get_base_model().model.register_forward_hook(count)
        return model

    def run_in(name: str, fails_at: int | None = None):
        named = [AlignedModel("a", TOKENIZER, lambda: load(fails_at))]
        with Run.open(tmp_path / name, CONFIG, seed=0) as run:
            return score_aligned(CONFIG, rows, named, run)

    whole, n_whole = run_in("whole"), len(calls)
    calls.clear()
    with pytest.raises(KeyboardInterrupt):
        run_in("broken", fails_at=n_whole - 2)
    calls.clear()
    assert run_in("broken") == whole
    # Of four batches after two passes that probe the layout, the second was lost.
    assert (n_whole, len(calls)) == (6, 5)
    calls.clear()
    assert run_in("broken") == whole
    assert not calls
    names = ("scores_0.jsonl", "rows.jsonl")
    for name in names:
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    lines = (tmp_path / "whole" / names[0]).read_text().splitlines()
    assert all(math.isfinite(json.loads(line)["mean_logp"]) for line in lines)


def test_a_row_that_one_model_cannot_take_is_dropped(tmp_path, caplog):
    rows = make_rows(2)
    rows.append(replace(rows[0], id="long", completion="a" * 200))
    config = CONFIG.model_copy(update={"tokenize": TokenizeConfig(max_length=100)})
    with Run.open(tmp_path, config, seed=0) as run:
        scored = score_aligned(config, rows, [aligned(make_model())], run)
    assert "long" not in {row.id for row in scored}
    assert len(scored) == 4
    assert "poft: 1 of 5 rows are dropped" in caplog.text


def test_poft_needs_an_aligned_model_and_a_row_that_all_of_them_take(tmp_path):
    """Each tokenizer has a word that makes one row short; the other row stays too long."""
    rows = [
        LabelledRow(id=letter, prompt="p:", completion=letter * 48, label=1.0) for letter in "ab"
    ]
    models = []
    for letter in "ab":
        tokenizer = tiny_tokenizer()
        tokenizer.add_tokens([letter * 8])
        models.append(AlignedModel(letter, tokenizer, lambda: tiny_policy(vocab_size=264)))
    config = CONFIG.model_copy(update={"tokenize": TokenizeConfig(max_length=32)})
    with Run.open(tmp_path / "a", config, seed=0) as run:
        with pytest.raises(DataError, match="poft: no aligned model was given"):
            score_aligned(config, rows, [], run)
        with pytest.raises(DataError, match="none of 2 rows fits every aligned model"):
            score_aligned(config, rows, models, run)


def test_different_rows_of_one_id_are_refused_and_equal_ones_share_their_score(tmp_path):
    rows = make_rows(2)
    with Run.open(tmp_path, CONFIG, seed=0) as run:
        with pytest.raises(DataError, match=r"are different rows called clean-0 .each needs an id"):
            score_aligned(
                CONFIG, [*rows, replace(rows[1], id="clean-0")], [aligned(make_model())], run
            )
        scored = score_aligned(CONFIG, [*rows, rows[0]], [aligned(make_model())], run)
    assert scored[0] == scored[-1]
    torch.testing.assert_close(scored[0].columns[COLUMN], mean_logps(make_model(), rows)[0].item())
