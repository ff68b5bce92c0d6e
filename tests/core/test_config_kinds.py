"""Another kind by override: the file's keys of its own kind fall away, and a line says which."""

from pathlib import Path
from typing import Annotated, Literal, get_args

import pytest
from pydantic import BaseModel, ConfigDict, Field
from trillium.config import find_run_file, load_config
from trillium.errors import ConfigError
from trillium.objectives.configs import RowConfig
from trillium.training.run_config import TrainRun


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dpo(Section):
    name: Literal["dpo"] = "dpo"
    beta: float = Field(0.1, gt=0)


class Simpo(Section):
    name: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0)
    gamma: float = 0.5


class Train(Section):
    max_steps: int = Field(10, ge=1)
    layout: Literal["padded", "shared", "packed"] = "shared"


Objective = Annotated[Dpo | Simpo, Field(discriminator="name")]


class Run(Section):
    objective: Objective = Dpo()
    rounds: list[Objective] = []


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def test_another_kind_by_override_starts_anew_and_says_what_it_leaves_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "objective: {name: dpo, beta: 0.5}\n")
    assert load_config(Run, path, ["objective.name=simpo"]).objective == Simpo(beta=2.0)
    assert caplog.messages == [
        "objective.name=simpo: beta=0.5 of run.yaml belonged to dpo and is left out"
    ]


def test_a_file_that_leaves_the_kind_to_the_default_gave_its_keys_to_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "objective: {beta: 0.5}\n")
    assert load_config(Run, path, ["objective.name=simpo"]).objective == Simpo(beta=2.0)
    assert caplog.messages == [
        "objective.name=simpo: beta=0.5 of run.yaml belonged to dpo and is left out"
    ]


def test_several_keys_of_the_other_kind_are_left_out_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = "objective: {name: simpo, beta: 0.5, gamma: 1.0}\n"
    assert load_config(Run, write(tmp_path, text), ["objective.name=dpo"]).objective == Dpo()
    assert caplog.messages == [
        "objective.name=dpo: beta=0.5, gamma=1.0 of run.yaml belonged to simpo and are left out"
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective.name=simpo", "objective.beta=0.3"],
        ["objective.beta=0.3", "objective.name=simpo"],
        ["objective={name: dpo, beta: 0.3}", "objective.name=simpo"],
    ],
)
def test_what_came_by_override_stays_with_another_kind(
    tmp_path: Path, overrides: list[str]
) -> None:
    path = write(tmp_path, "objective: {name: dpo, beta: 0.5}\n")
    assert load_config(Run, path, overrides).objective == Simpo(beta=0.3)


def test_the_same_kind_or_a_whole_section_by_override_leaves_nothing_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "objective: {name: dpo, beta: 0.5}\n")
    assert load_config(Run, path, ["objective.name=dpo"]).objective == Dpo(beta=0.5)
    assert load_config(Run, path, ["objective={name: simpo}"]).objective == Simpo()
    assert caplog.messages == []


def test_another_kind_in_a_list_leaves_out_keys_of_that_entry_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "rounds: [{name: dpo, beta: 0.5}, {name: dpo, beta: 0.6}]\n")
    assert load_config(Run, path, ["rounds.1.name=simpo"]).rounds == [Dpo(beta=0.5), Simpo()]
    assert caplog.messages == [
        "rounds.1.name=simpo: beta=0.6 of run.yaml belonged to dpo and is left out"
    ]


def test_a_key_that_the_new_kind_lacks_is_missed_where_its_section_stands(tmp_path: Path) -> None:
    class Table(Section):
        name: Literal["table"] = "table"
        path: Path

    class Sequences(Section):
        name: Literal["sequences"] = "sequences"
        folder: Path

    class Job(Section):
        source: Annotated[Table | Sequences, Field(discriminator="name")]

    path = write(tmp_path, "source:\n  name: table\n  path: log.csv\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Job, path, ["source.name=sequences"])
    assert str(caught.value).splitlines()[1].strip() == (
        f"{path}:1: source.folder: is missing; add it"
    )


def test_a_path_that_both_kinds_have_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Table(Section):
        name: Literal["table"] = "table"
        path: Path
        items: Path | None = None
        sep: str = ","

    class Sequences(Section):
        name: Literal["sequences"] = "sequences"
        path: Path
        items: Path | None = None
        sep: str = " "

    class Job(Section):
        source: Annotated[Table | Sequences, Field(discriminator="name")]

    path = write(tmp_path, "source: {name: table, path: log.csv, items: items.csv, sep: ';'}\n")
    found = load_config(Job, path, ["source.name=sequences"]).source
    assert found == Sequences(path=Path("log.csv"), items=Path("items.csv"))
    assert caplog.messages == [
        "source.name=sequences: sep=; of run.yaml belonged to table and is left out"
    ]


def test_sections_of_one_model_outlive_a_change_of_kind_and_inner_choices_do_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Method(Section):
        train: Train = Train()

    class Labelled(Method):
        weight: float = 1.0

    class Pairs(Method):
        name: Literal["pairs"] = "pairs"
        objective: Objective = Dpo()
        steps: int = 3

    class Labels(Labelled):
        name: Literal["labels"] = "labels"
        objective: Objective = Simpo()
        steps: int = 3

    class MaskedLabels(Labelled):
        name: Literal["masked_labels"] = "masked_labels"

    class Job(Section):
        method: Annotated[Pairs | Labels | MaskedLabels, Field(discriminator="name")]

    path = write(
        tmp_path,
        "method:\n  name: pairs\n  objective: {name: dpo, beta: 0.5}\n  steps: 4\n"
        "  train: {max_steps: 5}\n",
    )
    found = load_config(Job, path, ["method.name=labels", "method.train.layout=packed"])
    assert found.method == Labels(train=Train(max_steps=5, layout="packed"))
    assert caplog.messages == [
        "method.name=labels: objective, steps=4 of run.yaml belonged to pairs and are left out"
    ]
    found = load_config(Job, path, ["method.name=labels", "method.objective.beta=0.3"])
    assert found.method == Labels(train=Train(max_steps=5), objective=Simpo(beta=0.3))
    path = write(tmp_path, "method: {name: labels, weight: 2.0}\n")
    assert load_config(Job, path, ["method.name=masked_labels"]).method == MaskedLabels(weight=2.0)


@pytest.mark.parametrize("kind", get_args(RowConfig))
def test_every_objective_by_name_has_its_own_defaults_whatever_the_file_gave_to_dpo(
    tmp_path: Path, kind: type[BaseModel]
) -> None:
    path = write(
        tmp_path,
        "data: {path: rows.jsonl}\nobjective: {name: dpo, beta: 0.37, label_smoothing: 0.2}\n",
    )
    name = kind.model_fields["name"].default
    if name != "dpo":
        assert load_config(TrainRun, path, [f"objective.name={name}"]).objective == kind()
    assert load_config(TrainRun, path, ["objective.name=dpo"]).objective == (
        get_args(RowConfig)[0](beta=0.37, label_smoothing=0.2)
    )


def test_the_preset_gives_no_objective_a_number_and_so_leaves_nothing_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    minimal = find_run_file("minimal", package="trillium")
    run = load_config(TrainRun, minimal, ["data.path=rows.jsonl", "objective.name=simpo"])
    assert run.objective.beta == 2.0
    assert caplog.messages == []
