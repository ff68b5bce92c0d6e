"""Every objective against every kind of rows: what does not fit is refused, by name, unloaded."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError
from trillium.errors import DataError
from trillium.objectives.configs import ObjectiveConfig
from trillium.objectives.table import OBJECTIVES, needs_of
from trillium.policies.tiny import tiny_tokenizer
from trillium.tokenize import TokenizeConfig
from trillium.training.config import TrainConfig
from trillium.training.fit import check_fit, row_kind
from trillium.training.rows import read_trees

CONFIGS = TypeAdapter(ObjectiveConfig)
TRAINABLE = [name for name, row in OBJECTIVES.items() if row.is_trainable]
# The barest row of each kind: texts, and no label, reward or column.
BARE = {
    "pairs": {"prompt": "a ", "chosen": "b c", "rejected": "d"},
    "labelled rows": {"prompt": "a ", "completion": "b"},
    "rankings": {"prompt": "a ", "completions": ["b", "c c", "d"]},
    "search trees": {
        "prompt": "a ",
        "steps": [{"text": "x\n", "parent": -1}, *[{"text": t, "parent": 0} for t in "yz"]],
    },
    "trajectories": {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    },
}
FIELDS = {"label": {"label", "labels", "rewards"}, "reward": {"reward", "rewards"}}
OUT_OF_BOUNDS = {
    "beta": (0, -1, float("nan"), float("inf")),
    "epsilon": (-0.1, 0.5),
    "label_smoothing": (-0.1, 0.5),
    "tau": (0,),
    "lam": (-1,),
    "w": ([0.5, 0.6], [0.0, 1.0], [1.0]),
    "n_degrees": (1,),
    "not_an_option": (1,),
}


@pytest.mark.parametrize("kind", BARE)
@pytest.mark.parametrize("name", TRAINABLE)
def test_rows_that_do_not_fit_are_refused_with_objective_and_field(name, kind, tmp_path):
    objective = CONFIGS.validate_python({"name": name})
    needs = needs_of(objective)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([json.dumps(BARE[kind])] * 3))
    # SRPO makes its further responses itself.
    paths = () if name == "srpo" else needs.paths
    wanted = {field for label in needs.labels for field in FIELDS[label]}
    wanted |= {*needs.columns, *needs.behind, *paths}

    def read():
        trees = read_trees(path, objective, TokenizeConfig(), tiny_tokenizer()).trees
        check_fit(objective, trees, TrainConfig())

    if kind == row_kind(objective) and not wanted:
        read()
        return
    with pytest.raises(DataError) as caught:
        read()
    sentence = str(caught.value)
    assert f"objective {name}" in sentence
    if kind == row_kind(objective):
        assert any(f'"{field}"' in sentence for field in wanted), sentence


@pytest.mark.parametrize("name", OBJECTIVES)
def test_options_out_of_bounds_are_refused(name):
    if name not in TRAINABLE:
        with pytest.raises(ValidationError, match=f"{name} is a function the trainer cannot feed"):
            CONFIGS.validate_python({"name": name})
    for option, values in OUT_OF_BOUNDS.items():
        if option in OBJECTIVES[name].config.model_fields or option == "not_an_option":
            for value in values:
                with pytest.raises(ValidationError, match=option):
                    OBJECTIVES[name].config.model_validate({option: value})
