import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from trillium.errors import BackendError, ConfigError
from trillium.report import render_report
from trillium.tuning.page import make_page
from trillium.tuning.search import (
    PROPOSALS,
    RESULTS,
    Trial,
    best_trial,
    fit_trials,
    has_stalled,
    is_exhausted,
    search,
)
from trillium.tuning.space import Parameter, SpaceConfig
from trillium.tuning.surrogate import fit_surrogate, propose, spread_points

ACQUISITIONS = ["expected_improvement", "knowledge_gradient", "entropy_search"]
RATE, WEIGHT = "train.learning_rate", "objective.beta"


def make_space(**options: object) -> SpaceConfig:
    parameters = {
        RATE: {"low": 1e-6, "high": 1e-2, "scale": "log"},
        WEIGHT: {"low": 0.0, "high": 1.0},
    }
    settings = {"parameters": parameters, "n_trials": 8, "n_initial": 4, "measure": "m"}
    return SpaceConfig.model_validate(settings | options)


def hill(trial: int, values: Mapping[str, float | int], seed: int) -> float:
    """Return a smooth measure with its top at 1e-4 and 0.3, and a little noise by seed."""
    x = (math.log10(values[RATE]) + 4) / 4
    noise = 0.01 * math.sin(100 * trial + 7 * seed)
    return -(x**2) - (values[WEIGHT] - 0.3) ** 2 + noise


def test_a_log_scale_has_equal_factors_at_equal_steps() -> None:
    rate = Parameter(low=1e-6, high=1e-2, scale="log")
    assert [rate.at(t) for t in (0, 0.25, 0.5, 1)] == pytest.approx([1e-6, 1e-5, 1e-4, 1e-2])
    assert rate.place_of(1e-4) == pytest.approx(0.5)
    steps = Parameter(low=1, high=5, integer=True)
    assert [steps.at(t) for t in (0, 0.2, 0.5, 1)] == [1, 2, 3, 5]
    assert isinstance(steps.at(0.2), int)
    assert rate.at(0.0) == 1e-6
    assert rate.at(1.0) == 1e-2


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "scale": "log"}, "must be above 0"),
        ({"low": 0.5, "high": 3, "integer": True}, "whole numbers"),
        ({"low": 0, "high": math.inf}, "low must be below high"),
    ],
)
def test_bounds_without_meaning_are_refused(parameter: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Parameter.model_validate(parameter)


@pytest.mark.parametrize("options", [{"seeds": [1, 1]}, {"seeds": [-1]}, {"parameters": {}}])
def test_a_space_without_meaning_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make_space(**options)


def test_the_surrogate_goes_through_exact_results_and_doubts_what_it_has_not_seen() -> None:
    x = torch.linspace(0, 1, 9).double()
    surrogate = fit_surrogate(x[:, None].tolist(), torch.sin(6 * x).tolist(), seed=0)
    mean, deviation = surrogate.predict(x[:, None])
    assert torch.allclose(mean, torch.sin(6 * x), atol=0.1)
    far = surrogate.predict(torch.tensor([[3.0]]).double())[1]
    assert float(far[0]) > 5 * float(deviation.max())


def test_repeats_tell_the_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.linspace(0, 1, 6).double().repeat(8)
    noise = 0.5 * torch.randn(48, generator=generator, dtype=torch.float64)
    results = 3 * places + noise
    surrogate = fit_surrogate(places[:, None].tolist(), results.tolist(), seed=0)
    assert surrogate.noise == pytest.approx(0.5, rel=0.35)
    assert torch.allclose(surrogate.predict(places[:6, None])[0], 3 * places[:6], atol=0.5)


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_each_acquisition_looks_near_the_top_and_repeats_itself(acquisition: str) -> None:
    x = torch.tensor([0.0, 0.2, 0.55, 0.85, 1.0]).double()
    surrogate = fit_surrogate(x[:, None].tolist(), (-((x - 0.65) ** 2)).tolist(), seed=0)
    point = propose(surrogate, acquisition, seed=3)  # type: ignore[arg-type]
    assert 0.4 < point[0] < 0.9
    assert point == propose(surrogate, acquisition, seed=3)  # type: ignore[arg-type]


def test_the_search_finds_the_top_of_a_hill_and_knows_it(tmp_path: Path) -> None:
    space = make_space(n_trials=10, seeds=[0, 1])
    trials = search(space, hill, tmp_path)
    best = best_trial(space, trials)
    assert hill(0, best.values, 0) > -0.03
    assert all(set(trial.results) == {0, 1} for trial in trials)
    page = render_report(make_page(space, trials))
    assert "recommended" in page
    assert page.count('<svg role="img"') == 3


@pytest.mark.parametrize("acquisition", ["knowledge_gradient", "entropy_search"])
def test_what_looks_for_knowledge_spends_its_last_trial_on_the_optimum(
    tmp_path: Path, acquisition: str
) -> None:
    trials = search(make_space(acquisition=acquisition), hill, tmp_path)
    surrogate = fit_trials(make_space(), trials[:-1])
    assert surrogate is not None
    grid = spread_points(512, 2, seed=0)
    highest = float(surrogate.predict(grid)[0].max())
    last = torch.tensor([trials[-1].point], dtype=torch.float64)
    assert float(surrogate.predict(last)[0]) >= highest - 1e-6


def test_minimising_looks_for_the_valley(tmp_path: Path) -> None:
    space = make_space(n_trials=9, goal="minimise")
    trials = search(space, lambda *arguments: -hill(*arguments), tmp_path)
    assert hill(0, best_trial(space, trials).values, 0) > -0.05


@pytest.mark.parametrize("killed_at", [2, 9, 11])
def test_a_killed_search_ends_with_the_same_bytes(tmp_path: Path, killed_at: int) -> None:
    space = make_space(n_trials=6, seeds=[0, 1])
    search(space, hill, tmp_path / "whole")
    calls = 0

    def dying(trial: int, values: Mapping[str, float | int], seed: int) -> float:
        nonlocal calls
        calls += 1
        if calls == killed_at:
            raise KeyboardInterrupt
        return hill(trial, values, seed)

    with pytest.raises(KeyboardInterrupt):
        search(space, dying, tmp_path / "killed")
    # A row that was being written when the machine stopped.
    with (tmp_path / "killed" / RESULTS).open("a") as file:
        file.write('{"key": "9/')
    search(space, hill, tmp_path / "killed")
    for name in (PROPOSALS, RESULTS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def failing(limit: float) -> Callable[[int, Mapping[str, float | int], int], float]:
    def evaluate(trial: int, values: Mapping[str, float | int], seed: int) -> float:
        if values[RATE] > limit:
            raise BackendError("the loss is not finite")
        return hill(trial, values, seed)

    return evaluate


def test_a_run_that_diverges_is_kept_as_failed_and_avoided(tmp_path: Path) -> None:
    space = make_space(n_trials=8)
    trials = search(space, failing(1e-3), tmp_path)
    failed = [trial for trial in trials if trial.mean is None]
    assert failed, "the spread trials reach beyond 1e-3"
    assert best_trial(space, trials).values[RATE] <= 1e-3
    rows = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert {row["failed"] for row in rows if row["result"] is None} == {"the loss is not finite"}
    assert len([trial for trial in failed if trial.number >= 4]) <= 1


def test_when_every_run_fails_it_says_so(tmp_path: Path) -> None:
    space = make_space(n_trials=3, n_initial=2)
    trials = search(space, failing(0.0), tmp_path)
    with pytest.raises(BackendError, match="all 3 trials failed"):
        best_trial(space, trials)


def test_pruning_skips_the_further_seeds_of_a_bad_trial(tmp_path: Path) -> None:
    space = make_space(acquisition="random", n_trials=10, seeds=[0, 1, 2], prune=True)
    trials = search(space, hill, tmp_path)
    n_runs = [len(trial.results) for trial in trials]
    assert n_runs[:3] == [3, 3, 3]
    firsts = [trial.results[0] for trial in trials]
    for number in range(3, 10):
        median = sorted(firsts[:number])[number // 2]  # type: ignore[type-var]
        if firsts[number] > median:  # type: ignore[operator]
            assert n_runs[number] == 3
    assert 1 in n_runs


def test_patience_ends_a_search_that_stalls(tmp_path: Path) -> None:
    space = make_space(acquisition="random", n_trials=30, n_initial=2, patience=3)
    assert len(search(space, lambda *_: 1.0, tmp_path)) == 5
    better = [Trial(n, [0, 0], {}, {0: float(n)}) for n in range(6)]
    assert not has_stalled(space, better)
    assert has_stalled(space, [*better, *[Trial(n, [0, 0], {}, {0: 5.0}) for n in (6, 7, 8)]])


@pytest.mark.parametrize("acquisition", ["random", *ACQUISITIONS])
def test_nothing_is_run_twice_and_a_space_that_was_tried_whole_ends_the_search(
    tmp_path: Path, acquisition: str
) -> None:
    steps = {"train.max_steps": {"low": 1, "high": 4, "integer": True}}
    space = make_space(parameters=steps, n_trials=14, acquisition=acquisition, seeds=[0, 1])
    runs: list[tuple[float, int]] = []

    def evaluate(trial: int, values: Mapping[str, float | int], seed: int) -> float:
        runs.append((values["train.max_steps"], seed))
        return -abs(values["train.max_steps"] - 2)

    trials = search(space, evaluate, tmp_path)
    assert sorted(runs) == [(step, seed) for step in (1, 2, 3, 4) for seed in (0, 1)]
    assert is_exhausted(space, trials)
    assert best_trial(space, trials).values == {"train.max_steps": 2}
    assert not is_exhausted(make_space(), trials)


def test_whole_numbers_on_a_log_scale_are_all_tried(tmp_path: Path) -> None:
    steps = {"train.max_steps": {"low": 1, "high": 40, "integer": True, "scale": "log"}}
    space = make_space(parameters=steps, n_trials=60, acquisition="random")
    trials = search(space, lambda *_: 1.0, tmp_path)
    assert {trial.values["train.max_steps"] for trial in trials} == set(range(1, 41))
    assert len(trials) == 40


def test_a_trial_of_settings_that_ran_takes_their_results_and_adds_no_evidence(
    tmp_path: Path,
) -> None:
    space = make_space(n_trials=4, seeds=[0, 1])
    trials = search(space, failing(1e-3), tmp_path)
    whole = fit_trials(space, trials)
    for number, first in ((4, 0), (5, 1), (6, 2), (7, 3)):
        row = {"trial": number, "point": trials[first].point, "values": trials[first].values}
        with (tmp_path / PROPOSALS).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def evaluate(*_: object) -> float:
        raise AssertionError("it was run again")

    again = search(space.model_copy(update={"n_trials": 8}), evaluate, tmp_path)
    assert [trial.results for trial in again[4:]] == [trial.results for trial in trials]
    rows = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    copied = [row["failed"] for row in rows if row["trial"] >= 4 and row["result"] is None]
    assert copied
    assert all(re.fullmatch(r"as in trial \d", reason) for reason in copied)
    surrogate = fit_trials(space, again)
    assert whole is not None
    assert surrogate is not None
    assert torch.equal(surrogate.points, whole.points)


def test_among_noisy_results_the_luckiest_is_not_recommended() -> None:
    """A flat trial with one lucky result against a better one that was repeated five times."""
    space = make_space(parameters={WEIGHT: {"low": 0.0, "high": 1.0}}, seeds=[0, 1, 2, 3, 4])
    results = {0.0: [0.0, 0.1, -0.1, 0.0, 0.1], 0.2: [0.1, 0.2, 0.1, 0.3, 0.2]}
    results |= {0.5: [1.0, 1.1, 0.9, 1.0, 1.0], 0.8: [0.1, 0.3, 0.1, 0.2, 0.2]}
    trials = [
        Trial(n, [x], {WEIGHT: x}, dict(enumerate(found)))
        for n, (x, found) in enumerate(results.items())
    ]
    lucky = Trial(4, [0.21], {WEIGHT: 0.21}, {0: 1.02})
    assert best_trial(space, [*trials, lucky]).values[WEIGHT] == 0.5


def test_without_botorch_one_sentence_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "botorch", None)
    with pytest.raises(ConfigError, match=r"trillium\[tune\]"):
        fit_surrogate([[0.0], [1.0]], [0.0, 1.0], seed=0)
