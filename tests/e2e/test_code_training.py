"""Training kinds of the code application: rounds, KTO rows, DSTC, plus tests and speed."""

import importlib.util
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from trillium.config import load_config
from trillium_code.ablation import AblationConfig, run_ablation
from trillium_code.ablation_table import tabulate, write_results
from trillium_code.config import CodeConfig
from trillium_code.pipeline import run_code
from trillium_code.report_page import write_report
from trillium_code.summary import gains_rows, measure_result, speed_rows

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

_spec = importlib.util.spec_from_file_location(
    "code_demo", Path(__file__).with_name("test_code_demo.py")
)
demo = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(demo)
_spec = importlib.util.spec_from_file_location(
    "openai_server", Path(__file__).parents[1] / "openai_server.py"
)
openai_server = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(openai_server)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with tasks, a taught model, a run file, and a cache of its own."""
    folder = tmp_path_factory.mktemp("code")
    demo.teach(demo.write_tasks(folder / "tasks.jsonl"), folder / "model")
    (folder / "run.yaml").write_text(demo.CONFIG.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(workplace, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))


def config(workplace, name, *overrides):
    given = [f"output={workplace / name}", *overrides]
    return load_config(CodeConfig, workplace / "run.yaml", given)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def two_rounds(workplace):
    """A run of one round, continued as a run of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))
        one = run_code(config(workplace, "rounds"))
        return one, run_code(config(workplace, "rounds", "rounds=2"))


def test_a_second_round_samples_from_the_first_ones_policy_and_refers_to_it(workplace, two_rounds):
    one, two = two_rounds
    folder = two.folder
    assert len(two.n_pairs) == 2
    assert two.n_pairs[0] == len(one.pairs)
    first, second = (rows(folder / place / "samples_programs.jsonl") for place in ("", "round_2"))
    assert first != second
    for place in ("round_1", ""):
        start = rows(folder / place / "metrics.jsonl")[0]
        assert start["margin_nats"] == pytest.approx(0.0, abs=1e-3)
    adapters = [
        (folder / place / "adapter/adapter_model.safetensors").read_bytes()
        for place in ("round_1", "")
    ]
    assert adapters[0] != adapters[1]
    manifest = (folder / "run.json").read_bytes()
    assert run_code(config(workplace, "rounds", "rounds=2")) == two
    assert (folder / "run.json").read_bytes() == manifest


def test_a_kill_in_the_second_round_ends_in_the_same_bytes(workplace, two_rounds):
    folder = workplace / "killed"
    given = ["rounds=2", "--output", str(folder)]
    command = [*demo.TRILLIUM, "code", "run", str(workplace / "run.yaml"), *given]
    environment = {**os.environ, "TRILLIUM_CACHE": str(workplace / "other-cache")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (folder / "round_2/samples_programs.jsonl").exists() and process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "adapter").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("adapter", "round_1/adapter"):
        path = Path(name) / "adapter_model.safetensors"
        assert (folder / path).read_bytes() == (two_rounds[1].folder / path).read_bytes()
    for name in ("pairs.jsonl", "round_2/pairs.jsonl", "results_after.jsonl"):
        assert (folder / name).read_bytes() == (two_rounds[1].folder / name).read_bytes()


def test_kto_learns_from_the_halves_of_pairs(workplace):
    result = run_code(config(workplace, "kto", "objective={name: kto}"))
    steps = rows(result.folder / "metrics.jsonl")
    assert steps[-1]["loss"] < steps[0]["loss"]
    right = {"t/inc": "return n + 1", "t/dec": "return n - 1", "t/neg": "return -n"}
    assert any(right[pair.task_id] in pair.chosen for pair in result.pairs)


def test_dstc_trains_on_programs_with_tests_and_is_judged_on_programs_alone(workplace):
    result = run_code(config(workplace, "dstc", "rank.scorer=dstc"))
    assert result.pairs
    for pair in result.pairs:
        name = pair.task_id.removeprefix("t/")
        assert pair.chosen.count(f"assert {name}(") == 1
        assert pair.rejected.count(f"assert {name}(") == 1
    assert not any("assert" in program for found in result.after for program in found.programs)


def test_fast_pairs_plus_tests_and_speed_reach_table_and_report(workplace):
    plus = f"tasks.plus={{source: {workplace}/tasks.jsonl}}"
    chosen = config(
        workplace,
        "speed",
        "efficiency={n_rounds: 3}",
        "evaluate.speed=true",
        plus,
        "rank={min_agreement: 1}",
    )
    result = run_code(chosen)
    gains = measure_result(result, chosen.evaluate.k)
    assert gains.plus_by_k[1].after == gains.by_k[1].after
    assert [row[0] for row in gains_rows(gains)][2:] == [
        "pass@1, plus tests",
        "pass@4, plus tests",
    ]
    assert result.stages["measure"].counts["tasks"] == len(rows(result.folder / "meters.jsonl"))
    both = {f.task_id for f in result.before if any(f.passed)} & {
        f.task_id for f in result.after if any(f.passed)
    }
    assert {speed.task_id for speed in result.speed} <= both
    assert bool(speed_rows(gains)) == bool(result.speed)
    page = write_report(chosen, result).read_text()
    assert "plus tests" in page


def test_an_ablation_shares_samples_and_gives_every_arm_its_own_adapter(workplace):
    run = (workplace / "run.yaml").read_text().replace("\n", "\n  ")
    text = f"output: {workplace}/ablation\nseeds: [3]\nrun:\n  {run}\n"
    text += "arms:\n  - {name: codedpo}\n  - {name: random, scorer: random}\n"
    text += "  - {name: kto, objective: {name: kto}}\n"
    (workplace / "ablation.yaml").write_text(text)
    chosen = load_config(AblationConfig, workplace / "ablation.yaml")
    noted = []
    results = run_ablation(
        chosen, lambda found: noted.append([len(seed.arms) for seed in found.values()])
    )
    assert noted == [[1], [2], [3]]
    folder = workplace / "ablation" / "seed_3"
    stages = json.loads((folder / "run.json").read_text())["stages"]
    assert [name for name in stages if name.startswith("sample_programs")] == ["sample_programs"]
    adapters = {
        (folder / arm / "adapter/adapter_model.safetensors").read_bytes()
        for arm in ("codedpo", "random", "kto")
    }
    assert len(adapters) == 3
    rows = {row.name: row for row in tabulate(results)}
    right = {name: row.quality.share(row.quality.n_right) for name, row in rows.items()}
    assert right["codedpo"] == right["kto"] > right["random"]
    before = (folder / "run.json").read_bytes()
    assert run_ablation(chosen) == results
    assert (folder / "run.json").read_bytes() == before
    assert "codedpo" in write_results(chosen, results).read_text()


def test_a_server_that_loads_adapters_samples_everything(workplace):
    from transformers import AutoTokenizer
    from trillium.policies.config import LoraSettings, PolicyConfig
    from trillium.policies.load import load_policy

    lora = LoraSettings(r=4, alpha=8)
    policy = PolicyConfig(base=str(workplace / "model"), dtype="float32", lora=lora)
    with openai_server.serving(load_policy(policy).model, demo.tiny_tokenizer()) as server:
        asked = f"generation={{backend: server, url: {server.url}, model: tiny, max_rows: 8}}"
        loads = config(workplace, "served", asked, "generation.loads_adapters=true")
        result = run_code(loads)
        n_requests = len(server.requests)
        assert run_code(loads) == result
        assert len(server.requests) == n_requests
        named = [request["model"] for request in server.requests if "prompt" in request]
        plain = run_code(config(workplace, "half_served", asked))
        (adapter,) = (row["lora_name"] for row in server.requests if "lora_path" in row)
        assert server.adapters == {}  # it is unloaded at the end
    assert set(named) == {"tiny", adapter}
    n_before = named.index(adapter)
    assert set(named[n_before:]) == {adapter}
    assert result.pairs
    tokenizer = AutoTokenizer.from_pretrained(workplace / "model")
    for row in rows(workplace / "served" / "samples_programs.jsonl"):
        for sample in row["samples"]:
            text = tokenizer.decode(sample["ids"], skip_special_tokens=True)
            assert text.startswith(sample["text"])
    assert result.stages["sample_programs"].counts["encoded_again"] == 0
    # Without adapters on the server both evaluations are this process's, and training is the same.
    assert plain.pairs == result.pairs
    assert plain.stages["sample_before"].inputs != result.stages["sample_before"].inputs
    assert plain.stages["align"].inputs == result.stages["align"].inputs
