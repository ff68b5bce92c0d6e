"""Run files: every mistake at once, with line and nearest key; a dump reads back equal."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator
from trillium.config import (
    dump_config,
    find_run_file,
    list_presets,
    load_config,
    write_override,
)
from trillium.errors import ConfigError


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
    learning_rate: float = Field(1e-5, gt=0, description="Peak learning rate.")
    max_steps: int = Field(10, ge=1)
    layout: Literal["padded", "shared", "packed"] = "shared"


class Run(Section):
    model: str = Field(description="Asset, path or hub id.")
    objective: Annotated[Dpo | Simpo, Field(discriminator="name")] = Dpo()
    train: Train = Train()
    rounds: list[Annotated[Dpo | Simpo, Field(discriminator="name")]] = []
    labels: dict[str, float] = {}
    note: str | None = None

    @model_validator(mode="after")
    def _steps_need_a_rate(self) -> "Run":
        if self.train.max_steps > 1000:
            raise ValueError("train.max_steps above 1000 needs a schedule")
        return self


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


def mistakes(path: Path | None, *overrides: str) -> list[str]:
    """Return the lines of the complaint, without the folder of the file."""
    with pytest.raises(ConfigError) as caught:
        load_config(Run, path, overrides)
    text = str(caught.value)
    if path is not None:
        text = text.replace(f"{path.parent}/", "")
    return [line.strip() for line in text.splitlines()]


def test_a_file_and_overrides_become_a_frozen_model(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ntrain:\n  learning_rate: 1e-5\n  layout: packed\n")
    config = load_config(Run, path, ["train.max_steps=20", "objective.name=simpo"])
    assert config == Run(
        model="m",
        objective=Simpo(),
        train=Train(learning_rate=1e-5, max_steps=20, layout="packed"),
    )


def test_numbers_and_words_mean_what_they_look_like(tmp_path: Path) -> None:
    path = write(tmp_path, "model: no\nnote: 12:30\ntrain: {learning_rate: 1e-5, max_steps: 1_0}\n")
    config = load_config(Run, path, ["labels.a=2E3", "labels.b=.5"])
    assert (config.model, config.note) == ("no", "12:30")
    assert (config.train.learning_rate, config.train.max_steps) == (1e-5, 10)
    assert config.labels == {"a": 2000.0, "b": 0.5}


def test_every_mistake_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "objective:\n  name: simpo\n  gama: 1\n  beta: -1\n"
        "train:\n  learning_rte: 1e-5\n  max_steps: many\n  layout: padde\n",
    )
    found = mistakes(path)
    assert found == [
        "run.yaml is not a valid Run:",
        "run.yaml: model: is missing (Asset, path or hub id); add it",
        "run.yaml:4: objective.beta = -1: must be greater than 0",
        "run.yaml:3: objective.gama = 1: unknown key; did you mean objective.gamma?",
        "run.yaml:7: train.max_steps = 'many': must be a valid integer, "
        "unable to parse string as an integer",
        "run.yaml:8: train.layout = 'padde': must be 'padded', 'shared' or 'packed'; "
        "did you mean padded?",
        "run.yaml:6: train.learning_rte = 1e-05: unknown key; did you mean train.learning_rate?",
    ]


def test_a_branch_of_a_union_never_shows_in_a_key(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\nrounds:\n  - name: dpo\n  - name: simpo\n    gamma: x\n")
    assert mistakes(path)[1].startswith("run.yaml:5: rounds.1.gamma = 'x': must be a valid number")


@pytest.mark.parametrize("written", ["inf", "-inf", "nan", "Infinity", ".inf"])
def test_a_number_without_end_is_refused_as_a_word_too(tmp_path: Path, written: str) -> None:
    path = write(tmp_path, f"model: m\nrounds: [{{name: simpo, gamma: {written}}}]\n")
    sentence = f"{float(written.lstrip('.'))}: must be a finite number"
    assert mistakes(path, f"labels.a={written}")[1:] == [
        f"run.yaml:2: rounds.0.gamma = {sentence}",
        f"command line: labels.a = {sentence}",
    ]
    assert load_config(Run, None, ["model=nan", f"note={written!r}"]).model == "nan"


def test_an_unknown_kind_offers_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\nobjective: {name: simp}\nrounds: [{beta: 1.0}]\n")
    assert mistakes(path)[1:] == [
        "run.yaml:2: objective.name = 'simp': unknown; did you mean simpo?",
        "run.yaml:3: rounds.0.name: is missing (dpo, simpo); add it",
    ]


def test_a_key_in_the_wrong_section_is_sent_home(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\nlearning_rate: 3.0\nzzz: 1\n")
    assert mistakes(path)[1:] == [
        "run.yaml:2: learning_rate = 3.0: unknown key; did you mean train.learning_rate?",
        "run.yaml:3: zzz = 1: unknown key "
        "(the file takes model, objective, train, rounds, labels, note); remove it",
    ]


def test_duplicate_keys_name_both_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "model: a\ntrain:\n  max_steps: 1\nmodel: b\n")
    assert mistakes(path)[1:] == ["run.yaml:4: model: is already set in line 1; keep one of them"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model: m\ntrain: {max_steps: 3\n", "run.yaml:3: is not valid YAML: "),
        ("model: m\n\ttrain: 3\n", "run.yaml:2: is not valid YAML: "),
        ("- model\n", "run.yaml is not a valid Run:"),
        ("model: m\x00\n", "run.yaml:1: has an unprintable character; remove it"),
        ("a: &a [*a]\nmodel: m\n", "run.yaml is not a valid Run:"),
        ("model: " + "[" * 5000 + "]" * 5000, "run.yaml: is nested too deeply; write it flatter"),
        ("model: !!python/name:os.system m\n", "run.yaml:1: is not valid YAML: "),
    ],
)
def test_text_that_is_no_run_file_is_refused_with_its_line(
    tmp_path: Path, text: str, expected: str
) -> None:
    assert mistakes(write(tmp_path, text))[0].startswith(expected)


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read \(No such file"):
        load_config(Run, missing)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"model: \xff")
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(byte 7\)"):
        load_config(Run, binary)


def test_overrides_that_lead_nowhere_are_reported_together(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\ntrain: {max_steps: 5}\nrounds: [{name: dpo}]\n")
    found = mistakes(
        path, "train.max_steps.x=3", "word", "rounds.4.beta=1", "x={", "train.learning_rate=-1"
    )
    assert found[1:] == [
        "command line: train.max_steps.x: train.max_steps is 5, "
        "a single value with no keys below it",
        "command line: 'word': is no override (expected key=value, for example train.max_steps=20)",
        "command line: rounds.4.beta: rounds has 1 entries, so it has no '4' (0 is the first)",
        "command line: x = '{': is not a YAML value; quote it",
        "command line: train.learning_rate = -1: must be greater than 0",
    ]


def test_an_override_of_one_option_keeps_the_default_kind() -> None:
    config = load_config(Run, None, ["model=m", "objective.beta=0.3"])
    assert config.objective == Dpo(beta=0.3)


def test_a_key_of_another_kind_is_not_sent_to_a_neighbour_of_another_name(tmp_path: Path) -> None:
    class Orpo(Section):
        name: Literal["orpo"] = "orpo"
        lam: float = 0.1

    class Job(Section):
        objective: Annotated[Dpo | Orpo, Field(discriminator="name")] = Dpo()

    path = write(tmp_path, "objective: {name: orpo, beta: 0.1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(Job, path)
    assert str(caught.value).splitlines()[1].strip() == (
        f"{path}:1: objective.beta = 0.1: unknown key (objective takes name, lam); remove it"
    )


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\nrounds: [{name: dpo}, {name: simpo}]\n")
    assert load_config(Run, path, ["rounds.1.gamma=2"]).rounds == [Dpo(), Simpo(gamma=2.0)]


def test_a_value_where_a_section_belongs_says_which_keys_it_takes() -> None:
    assert mistakes(None, "model=m", "train=3", "objective=simpo")[1:] == [
        "command line: objective = 'simpo': must be a section; write objective.name=simpo",
        "command line: train = 3: must be a section with keys (layout, learning_rate, max_steps)",
    ]


def test_an_empty_section_is_told_from_a_wrong_one(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\nobjective: 3\ntrain:\n")
    assert mistakes(path)[1:] == [
        "run.yaml:2: objective = 3: must be a section with keys (beta, gamma, name)",
        "run.yaml:3: train: is empty; give it keys (layout, learning_rate, max_steps), "
        "or remove it",
    ]


def test_a_missing_section_names_the_key_it_needs() -> None:
    class Rows(Section):
        path: Path = Field(description="Where the rows are.")

    class Job(Section):
        rows: Rows = Field(description="What to learn from.")

    with pytest.raises(ConfigError) as caught:
        load_config(Job, None, [])
    assert str(caught.value).splitlines()[1].strip() == (
        "command line: rows.path: is missing (What to learn from); add it"
    )


def test_what_came_by_override_is_said_to_come_from_the_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\n")
    assert mistakes(path, "foo.bar=1", "objective.name=SIMPO")[1:] == [
        "command line: objective.name = 'SIMPO': unknown; did you mean simpo?",
        "command line: foo: unknown key (the file takes model, objective, train, rounds, labels, "
        "note); remove it",
    ]


def test_paths_and_patterns_are_told_without_their_machinery() -> None:
    class Job(Section):
        path: Path = Path()
        reference: str = Field("base", pattern="^(base|none)$", description="base | none")

    with pytest.raises(ConfigError) as caught:
        load_config(Job, None, ["path=", "reference=bse"])
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        "command line: path = None: must be a path",
        "command line: reference = 'bse': does not fit (base | none); correct it",
    ]


def test_an_empty_list_is_told_from_one_whose_entries_are_refused() -> None:
    class Job(Section):
        bands: tuple[Literal["easy", "hard"], ...] = Field(("easy",), min_length=1)

    def told(override: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_config(Job, None, [override])
        return [line.strip() for line in str(caught.value).splitlines()[1:]]

    assert told("bands=[]") == ["command line: bands: is empty (needs at least 1); add an entry"]
    assert told("bands=[esay]") == [
        "command line: bands.0 = 'esay': must be 'easy' or 'hard'; did you mean easy?"
    ]


def test_a_folder_is_no_run_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; give the path of a YAML run file"):
        find_run_file(str(tmp_path), package="trillium")


def test_a_rule_over_several_keys_is_told_in_its_own_words() -> None:
    assert mistakes(None, "model=m", "train.max_steps=2000")[1:] == [
        "command line: train.max_steps above 1000 needs a schedule"
    ]


@pytest.mark.property
@given(
    model=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    rate=st.floats(min_value=1e-300, max_value=1e300),
    labels=st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.floats(-1e9, 1e9)),
)
def test_a_dumped_config_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, model: str, rate: float, labels: dict[str, float]
) -> None:
    config = Run(model=model, objective=Simpo(), train=Train(learning_rate=rate), labels=labels)
    path = write(tmp_path_factory.mktemp("config"), dump_config(config))
    assert load_config(Run, path) == config


@pytest.mark.parametrize("word", ["no", "1e-5", "null", "12:30", "0x1f", "", "- a", "a: b", "#"])
def test_words_that_look_like_something_else_survive_a_dump(tmp_path: Path, word: str) -> None:
    assert load_config(Run, write(tmp_path, dump_config(Run(model=word)))).model == word


def test_a_preset_is_found_by_name_and_a_file_by_path(tmp_path: Path) -> None:
    presets = list_presets("trillium_code")
    path = write(tmp_path, "model: m\n")
    assert find_run_file(str(path), package="trillium_code") == path
    for name, preset in presets.items():
        assert find_run_file(name, package="trillium_code") == preset
        assert find_run_file(f"preset:{name}", package="trillium_code") == preset


def test_an_unknown_preset_lists_the_presets() -> None:
    with pytest.raises(ConfigError, match=r"nothing_here: no such file or preset \(presets of"):
        find_run_file("preset:nothing_here", package="trillium_code")


@pytest.mark.parametrize("value", ["exp #1", "2024", "a: b", "[x] y", 'say "it"', "ü\\n", ""])
def test_a_written_override_is_read_back_as_it_is(value: str) -> None:
    assert load_config(Run, None, [write_override("model", value)]).model == value


@pytest.mark.parametrize("value", ["exp #1", "#1", "[1] # one"])
def test_an_override_that_a_comment_would_shorten_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="what follows # would be left out as a comment"):
        load_config(Run, None, [f"model={value}"])
    assert load_config(Run, None, ["model='exp #1'"]).model == "exp #1"


def test_a_place_in_a_list_is_named_by_plain_digits() -> None:
    with pytest.raises(ConfigError, match="has 1 entries, so it has no '²'"):
        load_config(Run, None, ["model=m", "rounds=[{name: dpo}]", "rounds.²=3"])


def test_a_folder_that_hides_a_preset_names_the_way_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = next(iter(list_presets("trillium_code")))
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"or preset:{name}"):
        find_run_file(name, package="trillium_code")
