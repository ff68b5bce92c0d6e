import json
import math
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import MambaConfig, MambaForCausalLM
from trillium.errors import ConfigError, DataError
from trillium.objectives.recipe_configs import LiPOConfig, SRPOConfig
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.tokenize import TokenizeConfig
from trillium.training import cli
from trillium.training.journal import read_evaluations, read_metrics
from trillium.training.rows import read_trees

from .row_files import write_row_files


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A tiny model on disk, pairs and labelled rows in TRL's formats, a private cache."""
    monkeypatch.setenv("TRILLIUM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny_policy().save_pretrained("model")
    tiny_tokenizer().save_pretrained("model")
    write_row_files(tmp_path)
    run = {
        "output": "run",
        "policy": {"base": str(tmp_path / "model"), "dtype": "float32"},
        "data": {"path": "pairs.jsonl"},
        "train": {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "num_train_epochs": 2},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    return tmp_path


def test_train_makes_an_adapter_and_a_second_call_does_nothing(workplace, capsys):
    cli.train("run.yaml", ["data.held_out=held_out.jsonl", "train.eval_steps=3"])
    said = capsys.readouterr()
    assert "12 of 12 rows kept" in said.err
    assert "reference: base" in said.err
    assert "6 steps" in said.out
    adapter = workplace / "run" / "adapter" / "adapter_model.safetensors"
    before = adapter.stat().st_mtime_ns, adapter.read_bytes()
    assert [row["step"] for row in read_metrics(workplace / "run")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in read_evaluations(workplace / "run")] == [3, 6]
    cli.train("run.yaml", ["data.held_out=held_out.jsonl", "train.eval_steps=3"])
    assert "6 steps" in capsys.readouterr().out
    assert (adapter.stat().st_mtime_ns, adapter.read_bytes()) == before


def test_a_moved_run_with_the_same_settings_gives_the_same_adapter(workplace):
    cli.train("run.yaml", [])
    cli.train("run.yaml", ["output=other"])
    first, second = (
        (workplace / name / "adapter" / "adapter_model.safetensors").read_bytes()
        for name in ("run", "other")
    )
    assert first == second


def test_a_four_bit_base_trains_float32_adapters(workplace):
    cli.train("run.yaml", ["policy.quantisation=nf4"])
    adapter = load_file(workplace / "run" / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    assert all((tensor != 0).all() for tensor in adapter.values())
    assert read_metrics(workplace / "run")[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


def test_other_weights_under_the_same_name_are_trained_again(workplace):
    cli.train("run.yaml", [])
    adapter = workplace / "run" / "adapter" / "adapter_model.safetensors"
    before = adapter.read_bytes()
    tiny_policy(seed=7).save_pretrained("model")
    cli.train("run.yaml", [])
    assert adapter.read_bytes() != before


def test_a_tokenizer_of_another_model_is_refused(workplace):
    tiny_policy(vocab_size=100).save_pretrained("model")
    with pytest.raises(ConfigError, match=r"gives token 2\d\d and the model knows 100; copy"):
        cli.train("run.yaml", [], dry_run=True)


def test_a_recurrent_model_trains_on_padded_rows_and_says_so(workplace, caplog):
    config = MambaConfig(
        vocab_size=260, hidden_size=32, num_hidden_layers=2, state_size=8, eos_token_id=2
    )
    MambaForCausalLM(config).save_pretrained("model")
    options = ["policy.dtype=bfloat16", "policy.lora.targets=[in_proj]", "train.max_steps=1"]
    cli.train("run.yaml", options)
    assert (
        "layout: padded instead of auto, because its layers of kind linear_attention read tokens "
        "in row order; every path is computed whole"
    ) in caplog.messages
    assert read_metrics(workplace / "run")[0]["loss"] == pytest.approx(math.log(2))


def test_labelled_rows_train_with_kto(workplace):
    cli.train("run.yaml", ["data.path=rows.jsonl", "objective={name: kto}"])
    assert all(row["kl"] >= 0 for row in read_metrics(workplace / "run"))


def test_kto_says_when_one_kind_of_label_is_missing(workplace, caplog):
    rows = [{"prompt": "p", "completion": f"c{index}", "label": True} for index in range(4)]
    (workplace / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cli.train("run.yaml", ["data.path=good.jsonl", "objective={name: kto}"], dry_run=True)
    assert caplog.messages == [
        "good.jsonl: every label is True; kto weighs good responses against bad ones, add the "
        "other kind"
    ]


@pytest.mark.parametrize(
    ("file", "objective"),
    [
        ("accompanied", "{name: dove}"),
        ("accompanied", "{name: slic}"),
        ("accompanied", "{name: tpo_triple}"),
        ("accompanied", "{name: rationale_dpo}"),
        ("accompanied", "{name: xpo}"),
        ("accompanied", "{name: srpo}"),
        ("accompanied", "{name: c3po, kd_lambda: 0.5}"),
        ("accompanied", "{name: spo_degree}"),
        ("accompanied", "{name: sppo}"),
        ("accompanied", "{name: gpo}"),
        ("accompanied", "{name: modpo}"),
        ("accompanied", "{name: tdpo}"),
        ("accompanied", "{name: sparsepo, masks: independent}"),
        ("plain", "{name: dove}"),
        ("plain", "{name: tpo_triple}"),
        ("plain", "{name: srpo}"),
        ("plain", "{name: slic, imitate: chosen}"),
        ("ranked", "{name: lipo, labels_from: rewards}"),
        ("ranked", "{name: lipo, labels_from: ranks, variant: softmax}"),
        ("ranked", "{name: pro}"),
        ("searched", "{name: tree_tpo}"),
        ("used", "{name: oreo}"),
        ("used", "{name: oreo, level: step}"),
        ("supervised", "{name: poft}"),
    ],
)
def test_every_kind_of_row_trains_and_is_evaluated_from_a_run_file(workplace, file, objective):
    options = [f"data.path={file}.jsonl", f"data.held_out={file}.jsonl", "train.eval_steps=2"]
    cli.train("run.yaml", [*options, f"objective={objective}", "train.num_train_epochs=1"])
    rows = read_metrics(workplace / "run")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    (evaluated,) = read_evaluations(workplace / "run")
    assert math.isfinite(evaluated["eval_loss"])
    adapter = load_file(workplace / "run" / "adapter" / "adapter_model.safetensors")
    assert all((tensor != 0).all() for tensor in adapter.values())


def test_rewards_make_the_labels_that_win_probabilities_would(workplace):
    """Rewards 0, 1, 2: the best beats the others with (sigmoid(1) + sigmoid(2)) / 2."""
    path, tokenizer = workplace / "ranked.jsonl", tiny_tokenizer()
    trees = read_trees(path, LiPOConfig(labels_from="rewards"), TokenizeConfig(), tokenizer).trees
    best = (1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(-2))) / 2
    assert trees[1].labels["label"] == pytest.approx((1 - best, 0.5, best))
    trees = read_trees(path, LiPOConfig(labels_from="ranks"), TokenizeConfig(), tokenizer).trees
    assert trees[1].labels["label"] == (0.0, 0.5, 1.0)


def test_a_reviser_reads_the_prompt_the_response_and_the_instruction(workplace):
    config = SRPOConfig(revision="Do better.")
    tokenizer = tiny_tokenizer()
    trees = read_trees(workplace / "accompanied.jsonl", config, TokenizeConfig(), tokenizer).trees
    row = json.loads((workplace / "accompanied.jsonl").read_text().splitlines()[0])
    prompt, chosen, rejected = (
        row[name][0]["content"] for name in ("prompt", "chosen", "rejected")
    )
    path = trees[0].path(4)  # the chosen response as a revision of the rejected one
    assert tokenizer.decode(path.ids) == (
        f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{rejected}<|im_end|>\n"
        "<|im_start|>user\nDo better.<|im_end|>\n"
        f"<|im_start|>assistant\n{chosen}<|im_end|>"
    )
    scored = [token for token, is_scored in zip(path.ids, path.scored, strict=True) if is_scored]
    assert tokenizer.decode(scored) == f"{chosen}<|im_end|>"


def test_a_dry_run_counts_shows_a_tree_and_starts_nothing(workplace, capsys):
    shutil.rmtree(workplace / "model")
    tiny_tokenizer().save_pretrained("model")
    cli.train("run.yaml", [], dry_run=True)
    said = capsys.readouterr().out
    assert "12 of 12 rows kept" in said
    assert "<|im_start|>assistant" in said
    assert not (workplace / "run").exists()


def test_a_dry_run_finds_what_this_machine_has_not(workplace):
    if torch.cuda.is_available():
        pytest.skip("a GPU is visible, and it has FlexAttention")
    with pytest.raises(
        ConfigError, match=r"policy\.attention=flex needs a GPU and none is visible"
    ):
        cli.train("run.yaml", ["policy.attention=flex"], dry_run=True)


@pytest.mark.parametrize("source", ["rewards", "ranks"])
def test_rankings_without_labels_are_sent_to_what_labels_can_be_made_of(workplace, source):
    rows = [json.loads(line) for line in (workplace / "ranked.jsonl").read_text().splitlines()]
    other = {"rewards": "ranks", "ranks": "rewards"}[source]
    for row in rows:
        del row[other]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (workplace / "one_source.jsonl").write_text(text)
    given = ["data.path=one_source.jsonl", "objective.name=lipo"]
    with pytest.raises(DataError) as error:
        cli.train("run.yaml", given)
    assert str(error.value).endswith(
        f"(objective lipo needs labels); add it, set objective.labels_from={source}, or choose "
        "another objective"
    )
    cli.train("run.yaml", [*given, f"objective.labels_from={source}"], dry_run=True)


@pytest.mark.parametrize(
    ("overrides", "kind", "sentence"),
    [
        (["data.path=rows.jsonl"], DataError, "holds labelled rows .* dpo needs pairs"),
        (["objective={name: kto}"], DataError, "holds pairs .* kto needs labelled rows"),
        (
            ["objective={name: lipo}"],
            DataError,
            r"holds pairs \(chosen, rejected\) and objective lipo needs rankings",
        ),
        (
            ["data.path=ranked.jsonl", "objective={name: lipo}"],
            DataError,
            r'ranked.jsonl:1, .*: field "labels" is missing or no number \(objective lipo needs',
        ),
        (
            ["data.path=unlabelled.jsonl", "objective={name: lipo}"],
            DataError,
            r'field "labels" is \[2.0, 2.0\] \(objective lipo needs one number from 0 to 1',
        ),
        (
            ["data.path=without_source.jsonl", "objective={name: lipo, labels_from: ranks}"],
            DataError,
            r'field "ranks" is missing or no number \(objective lipo needs ranks\)',
        ),
        (
            ["data.path=without_source.jsonl", "objective={name: lipo, labels_from: rewards}"],
            DataError,
            r'field "rewards" is missing or no number \(objective lipo needs rewards\)',
        ),
        (
            ["data.path=ranked_from_0.jsonl", "objective={name: lipo, labels_from: ranks}"],
            DataError,
            r'jsonl:1, .*: field "ranks" is \[1.0, 0.0\] \(objective lipo needs one number from 1,',
        ),
        (
            ["data.path=certain.jsonl", "objective={name: sppo}"],
            DataError,
            'field "p_win_chosen" is 60 .objective sppo needs a probability, 0 to 1',
        ),
        (
            ["data.path=accompanied.jsonl", "objective={name: modpo, w: [0.4, 0.3, 0.3]}"],
            ConfigError,
            "objective.w has 3 weights .rows hold one margin per response",
        ),
        (
            ["data.path=ranked.jsonl"],
            DataError,
            "holds rankings .* and objective dpo needs pairs",
        ),
        (
            ["objective={name: tpo_triple}"],
            DataError,
            r'pairs.jsonl:1, .* field "gold" is missing \(objective tpo_triple needs',
        ),
        (
            ["objective={name: srpo}"],
            DataError,
            'field "p_win" is missing or no number .objective srpo needs p_win',
        ),
        (
            ["data.path=accompanied.jsonl", "objective={name: spo_degree, n_degrees: 2}"],
            DataError,
            'field "degree_label" is 2 .objective spo_degree needs a whole number from 0 to 1',
        ),
        (
            ["data.path=verdictless.jsonl", "objective={name: oreo}"],
            DataError,
            'field "reward" is missing or no number .objective oreo needs reward',
        ),
        (
            ["data.path=supervised.jsonl", "objective={name: kto}"],
            DataError,
            'field "label" is missing',
        ),
        (["objective={name: rdpo, epsilon: 0.5}"], ConfigError, "epsilon = 0.5: must be less than"),
        (["objective={name: rso}"], ConfigError, "rso is a function the trainer cannot feed"),
        (
            ["data.path=ranked.jsonl", "objective={name: pro}", "train.stop_margin=2"],
            ConfigError,
            "train.stop_margin is set and objective pro has no log-ratio margin",
        ),
        (["reference=none"], ConfigError, "reference is none and objective dpo compares"),
        (["reference=bse"], ConfigError, "reference"),
        (["objective.beta=0"], ConfigError, "objective.beta = 0: must be greater than 0"),
        (["train.learning_rte=1"], ConfigError, "did you mean train.learning_rate"),
        (["train.eval_steps=1"], ConfigError, "train.eval_steps is set and there is nothing"),
        (["data.path=none.jsonl"], DataError, "none.jsonl: there is no such file"),
        (["data.tokenize.max_length=10"], DataError, "none of 12 rows is left .12 too long"),
        (
            ["objective={name: modpo}"],
            DataError,
            r'pairs.jsonl:1, 2, 3, 4, 5 and 7 more: field "margin_chosen" is missing or no number',
        ),
        (
            ["data.path=same.jsonl", "objective={name: kto}"],
            DataError,
            "same.jsonl: all 4 rows have the same response",
        ),
        (["data.held_out=rows.jsonl"], DataError, "rows.jsonl: holds labelled rows"),
        (
            ["data.path=rows.jsonl", "data.held_out=same.jsonl", "objective={name: kto}"],
            DataError,
            "same.jsonl: all 4 rows have the same response",
        ),
        (["policy.adapter=none"], ConfigError, "none: holds no adapter"),
        (["reference=adapter:none"], ConfigError, "none: holds no adapter"),
        (["train.learning_rate=.inf"], ConfigError, "learning_rate = inf: must be a finite"),
        (
            ["data.path=ratings.jsonl", "objective={name: kto}"],
            DataError,
            'ratings.jsonl:2: field "label" is 3 .objective kto needs true or false, 1 or 0',
        ),
        (
            ["data.path=long.jsonl", "data.tokenize.max_length=null"],
            DataError,
            r"long.jsonl: the longest row has 3,0\d\d tokens .model reads 2,048.; set "
            "data.tokenize.max_length=2048",
        ),
    ],
)
def test_what_cannot_work_is_said_before_a_model_is_loaded(workplace, overrides, kind, sentence):
    for weights in (workplace / "model").glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(kind, match=sentence):
        cli.train("run.yaml", overrides)
    assert not (workplace / "run").exists()
