"""From a preference file to an adapter that is checked, described, registered and served."""

import json
import re
import shutil

import pytest
import yaml
from trillium.deployment.card import write_card
from trillium.deployment.check import check_adapter
from trillium.deployment.cli import app
from trillium.deployment.locate import find_adapter
from trillium.deployment.merge import merge_adapter
from trillium.deployment.provenance import read_provenance
from trillium.deployment.run_facts import read_run
from trillium.deployment.sbom import write_sbom
from trillium.errors import ConfigError
from trillium.files import hash_path
from trillium.policies.config import LoraSettings, PolicyConfig
from trillium.serving.sources import find_sources
from trillium.training.config import TrainConfig
from trillium.training.run_config import DataConfig, TrainRun
from trillium.training.runfile import run_training
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def run(tmp_path_factory, llama_base):
    """A finished run of `trillium train` on eight rows."""
    folder = tmp_path_factory.mktemp("run")
    rows = [
        {"prompt": f"{n} plus 1 is", "chosen": f" {n + 1}", "rejected": " no"} for n in range(8)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainRun(
        output=folder / "tiny-run",
        data=DataConfig(path=folder / "pairs.jsonl", held_out=folder / "pairs.jsonl"),
        policy=PolicyConfig(base=str(llama_base), dtype="float32", lora=LoraSettings(r=4)),
        train=TrainConfig(max_steps=3, eval_steps=3, seed=5),
    )
    run_training(config, lambda sentence: None)
    return folder / "tiny-run"


def kinds(found):
    return [each.kind for each in found]


def test_what_training_wrote_passes_the_check(run):
    found = check_adapter(find_adapter(run))
    assert kinds(found) == ["fine", "fine", "warning", "fine", "fine"]
    assert "is a path of this machine" in found[2].sentence
    assert "as in training" in found[3].sentence


def test_the_record_says_what_the_adapter_was_trained_on(run, llama_base):
    record = read_provenance(run / "adapter")
    assert record.base.name == str(llama_base)
    assert (record.base.dtype, record.base.quantisation) == ("float32", "none")
    assert record.base.model_type == "llama"
    assert record.method["objective"]["name"] == "dpo"
    assert record.n_examples == 8


def test_another_base_of_the_same_shape_is_found_out(run, tmp_path, llama_base):
    other = shutil.copytree(llama_base, tmp_path / "other")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = check_adapter(run / "adapter", base=str(other))
    (problem,) = (each.sentence for each in found if each.kind == "problem")
    assert problem.startswith(f"{other}: its weights are not those of training")
    with pytest.raises(ConfigError, match="is not the base"):
        merge_adapter(run / "adapter", tmp_path / "merged", base=str(other))
    assert not (tmp_path / "merged").exists()


def test_the_card_holds_what_the_run_recorded_and_leaves_the_run_intact(run):
    before = hash_path(run / "adapter")
    answer = CliRunner().invoke(app, ["card", str(run)])
    assert answer.exit_code == 0, answer.output
    card = (run / "MODEL_CARD.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "peft"
    data = hash_path(run.parent / "pairs.jsonl")
    assert f"| align: data | `{data}` |" in card
    assert f"| align: held_out | `{data}` |" in card
    assert "| objective.name | dpo |" in card
    assert "| reference | base |" in card
    assert re.search(r"\| held out: \S+ \| [-\d.,e]+ \|", card)
    assert "| seed | 5 |" in card
    assert "not stated by its files" in card
    assert hash_path(run / "adapter") == before
    assert write_card(read_run(run)) == card


def test_the_bill_of_materials_is_cyclonedx_and_complete(run):
    facts = read_run(run)
    text = write_sbom(facts)
    assert text == write_sbom(facts)
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bill["serialNumber"])
    references = [each["bom-ref"] for each in bill["components"]]
    assert len(set(references)) == len(references)
    assert set(bill["dependencies"][0]["dependsOn"]) == set(references)
    versions = {
        each["name"]: each["version"] for each in bill["components"] if each["type"] == "library"
    }
    recorded = facts.environment["packages"]
    assert {name: versions[name] for name in recorded} == recorded
    assert "safetensors" in versions  # a need of trillium that the run does not record
    assert "markupsafe" in versions  # a need of a need
    adapter = bill["metadata"]["component"]["hashes"][0]["content"]
    assert adapter == hash_path(run / "adapter" / "adapter_model.safetensors")
    data = {each["name"] for each in bill["components"] if each["type"] == "data"}
    assert data == {"align: data", "align: held_out"}


def test_a_run_is_registered_and_found_by_the_server(run, tmp_path):
    runner = CliRunner()
    path = tmp_path / "adapters.yaml"
    base = ["--base", "org/base", "--base-name", "tiny"]
    added = runner.invoke(app, ["add", "sums", str(run), "--registry", str(path), *base])
    assert added.exit_code == 0, added.output
    sources = find_sources([str(path)], base=None)
    assert sources.base == "org/base"
    assert sources.adapters["sums"].resolve() == (run / "adapter").resolve()
    by_run = find_sources([str(run), f"named={run}"], base=None)
    assert set(by_run.adapters) == {"tiny-run", "named"}
    output = tmp_path / "out"
    rendered = runner.invoke(app, ["render", "--registry", str(path), "--output", str(output)])
    assert rendered.exit_code == 0, rendered.output
    assert (output / "vllm" / "serve.sh").stat().st_mode & 0o111


def test_check_ends_with_1_where_servers_refuse(run, tmp_path):
    runner = CliRunner()
    assert runner.invoke(app, ["check", str(run)]).exit_code == 0
    folder = shutil.copytree(run / "adapter", tmp_path / "adapter")
    path = folder / "adapter_config.json"
    facts = json.loads(path.read_text())
    for change, said in (
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole layers"),
        ({"bias": "all"}, "biases"),
        ({"rank_pattern": {"q_proj": 8}}, "differ in rank"),
        ({"init_lora_weights": "pissa"}, "changed before training"),
    ):
        path.write_text(json.dumps({**facts, **change}))
        answer = runner.invoke(app, ["check", str(folder)])
        assert answer.exit_code == 1
        assert said in answer.output


def test_sources_that_cannot_be_served_together_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="another adapter is called"):
        find_sources([str(run), str(run / "adapter")], base=None)
    other = shutil.copytree(run / "adapter", tmp_path / "other")
    path = other / "adapter_config.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "base_model_name_or_path": "someone/else"}))
    with pytest.raises(ConfigError, match="several bases"):
        find_sources([str(run), str(other)], base=None)
    with pytest.raises(ConfigError, match="no folder"):
        find_sources([str(tmp_path / "nothing")], base=None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no adapter"):
        find_sources([str(tmp_path / "empty")], base=None)
