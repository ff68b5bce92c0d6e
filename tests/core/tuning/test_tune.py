import json
from pathlib import Path

import pytest
import yaml
from trillium.config import load_config
from trillium.errors import ConfigError
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium.tuning.cli_text import render
from trillium.tuning.space import SpaceConfig, split
from trillium.tuning.trial import check_run
from trillium.tuning.tune import Tuned, tune

COLOURS, THINGS = ["red", "green", "blue"], ["sun", "moon", "cat"]


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    base = tmp_path / "tiny"
    tiny_policy().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    for name, shift in (("pairs", 0), ("held", 1)):
        rows = [
            {
                "prompt": f"{n + shift}: ",
                "chosen": COLOURS[(n + shift) % 3],
                "rejected": THINGS[n % 3],
            }
            for n in range(6)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = {
        "data": {"path": str(tmp_path / "pairs.jsonl"), "held_out": str(tmp_path / "held.jsonl")},
        "policy": {"base": str(base), "lora": {"r": 2, "alpha": 4}},
        "train": {"max_steps": 2, "eval_steps": 2, "per_device_train_batch_size": 3},
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def make_space(folder: Path, **options: object) -> SpaceConfig:
    settings = {
        "output": folder,
        "parameters": {
            "train.learning_rate": {"low": 1e-4, "high": 1e-1, "scale": "log"},
            "policy.lora.r": {"low": 1, "high": 4, "integer": True},
        },
        "measure": "eval_margin_nats",
        "n_trials": 4,
        "n_initial": 3,
    }
    return SpaceConfig.model_validate(settings | options)


def run(path: Path, space: SpaceConfig) -> tuple[Tuned, list[str]]:
    said: list[str] = []
    return tune(path, space, [], said.append), said


def test_real_runs_are_tried_kept_and_recommended(run_file: Path, tmp_path: Path) -> None:
    found, said = run(run_file, make_space(tmp_path / "tune"))
    assert [len(trial.results) for trial in found.trials] == [1, 1, 1, 1]
    assert len(said) == 4
    best = yaml.safe_load((tmp_path / "tune/best.yaml").read_text())
    assert best == found.best.values
    assert isinstance(best["policy.lora.r"], int)
    (rows,) = (tmp_path / "tune/search").glob("*/results.jsonl")
    for row in map(json.loads, rows.read_text().splitlines()):
        folder = rows.parent / f"{row['trial']:03}-seed0"
        last = json.loads((folder / "evaluations.jsonl").read_text().splitlines()[-1])
        assert row["result"] == last["eval_margin_nats"]
    assert "recommended" in (tmp_path / "tune/report.html").read_text()

    # The same command again trains nothing; more trials continue the same search.
    before = rows.read_bytes()
    again, said = run(run_file, make_space(tmp_path / "tune"))
    assert said == []
    assert again.trials == found.trials
    more, said = run(run_file, make_space(tmp_path / "tune", n_trials=5))
    assert len(said) == 1
    assert rows.read_bytes().startswith(before)
    assert more.trials[:4] == found.trials
    assert render(make_space(tmp_path), more).row_count == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"train.learning_rte": {"low": 0.1, "high": 1}}}, "did you mean"),
        ({"parameters": {"objective.beta": {"low": -1, "high": 1}}}, "objective.beta"),
        ({"parameters": {"train.max_steps": {"low": 1.5, "high": 3}}}, "train.max_steps"),
        ({"measure": "eval_elegance"}, "it has .*eval_loss"),
    ],
)
def test_a_space_that_does_not_fit_the_run_is_refused(
    run_file: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(run_file, make_space(tmp_path / "tune", **options))


def test_a_measure_of_held_out_rows_needs_an_evaluation(run_file: Path, tmp_path: Path) -> None:
    space = make_space(tmp_path / "tune")
    with pytest.raises(ConfigError, match=r"set data\.held_out and train\.eval_steps"):
        check_run(run_file, ["train.eval_steps=null"], space)


def test_mistakes_in_the_space_file_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("parameters:\n  objective.beta: {low: 0.1, high: 1}\nn_trails: 3\n")
    with pytest.raises(ConfigError, match=r"space\.yaml:3.*did you mean n_trials"):
        load_config(SpaceConfig, path)
    assert split(["train.max_steps=3", "space.n_trials=2"]) == (
        ["train.max_steps=3"],
        ["n_trials=2"],
    )


def test_a_space_that_was_tried_whole_says_so(run_file: Path, tmp_path: Path) -> None:
    ranks = {"policy.lora.r": {"low": 1, "high": 2, "integer": True}}
    found, said = run(run_file, make_space(tmp_path / "tune", parameters=ranks))
    assert len(found.trials) == 2
    assert len(said) == 3
    assert said[-1].startswith("every setting of the space was tried in 2 trials")


def test_a_base_that_reads_otherwise_is_searched_anew(run_file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    chat = [
        {
            key: [{"role": "user" if key == "prompt" else "assistant", "content": text}]
            for key, text in json.loads(line).items()
        }
        for line in rows.read_text().splitlines()
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in chat))
    space = make_space(tmp_path / "tune", n_trials=1, n_initial=1, measure="logps/chosen")
    before, _ = run(run_file, space)
    template = tmp_path / "tiny" / "chat_template.jinja"
    template.write_text("<|im_start|>system\nBe brief.<|im_end|>\n" + template.read_text())
    after, said = run(run_file, space)
    assert len(said) == 1
    fresh, _ = run(run_file, space.model_copy(update={"output": tmp_path / "fresh"}))
    assert after.trials == fresh.trials != before.trials
