"""The fault harness on the smallest application; `tests/benchmarks/faults.py` breaks all three."""

import importlib.util
from pathlib import Path

import pytest
from trillium.config import load_config
from trillium_code.config import CodeConfig
from trillium_math.config import MathConfig

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_path = Path(__file__).parents[1] / "benchmarks" / "faults.py"
_spec = importlib.util.spec_from_file_location("faults", _path)
faults = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(faults)


def test_broken_runs_of_the_recommender_go_on_to_the_same_bytes(tmp_path):
    journey = faults.prepare("rec", tmp_path)
    whole = faults.run_undisturbed(journey, tmp_path)
    assert len(whole.outputs) > 5
    outcomes = list(faults.break_runs(journey, whole, tmp_path, n_points=3, seed=1))
    assert [outcome.differs for outcome in outcomes] == [[], [], []]
    assert any(outcome.broke for outcome in outcomes)


@pytest.mark.parametrize(("app", "config"), [("code", CodeConfig), ("math", MathConfig)])
def test_the_journeys_of_the_language_models_are_ready_to_run(app, config, tmp_path):
    journey = faults.prepare(app, tmp_path)
    assert load_config(config, Path(journey.command[-1])).output == tmp_path / "run"
    assert (tmp_path / "model" / "model.safetensors").exists()


def test_an_output_that_changed_is_named(tmp_path):
    journey = faults.prepare("rec", tmp_path)
    faults._run(journey, tmp_path / "run")
    run = tmp_path / "run" / "run"
    outputs = faults.read_outputs(run)
    (run / "metrics.jsonl").write_text("forged")
    changed = {name for name, _ in outputs.items() ^ faults.read_outputs(run).items()}
    assert {name.partition(":")[2] for name in changed} == {"metrics.jsonl"}
