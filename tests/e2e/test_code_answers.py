"""The style `answer` from prompt to report: a tiny policy that was taught to answer in sentences.

Some of its answers are right, some wrong, some have another name, and some have no code at all.
"""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM
from trillium.config import load_config
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.config import CodeConfig
from trillium_code.evalplus import write_samples
from trillium_code.pipeline import run_code
from trillium_code.preview import preview
from trillium_code.prompts import PromptConfig, assert_prompts, program_prompts
from trillium_code.report_page import write_report
from trillium_code.summary import cost_rows, measure_cost, measure_result

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

PROMPT = PromptConfig(program_style="answer", test_style="completion", test_shots=0)
OVERRIDES = (
    "prompt.program_style=answer",
    "programs.max_new_tokens=56",
    "evaluate.sampling.max_new_tokens=56",
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with tasks, a taught model, a run file, and a cache of its own."""
    folder = tmp_path_factory.mktemp("answers")
    teach(demo.write_tasks(folder / "tasks.jsonl"), folder / "model")
    (folder / "run.yaml").write_text(demo.CONFIG.format(folder=folder))
    return folder


@pytest.fixture(autouse=True)
def _own_cache(workplace, monkeypatch):
    monkeypatch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))


@pytest.fixture(scope="module")
def finished(workplace):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRILLIUM_CACHE", str(workplace / "cache"))
        return run_code(config(workplace, "run"))


def config(workplace, name, *overrides):
    given = [f"output={workplace / name}", *OVERRIDES, *overrides]
    return load_config(CodeConfig, workplace / "run.yaml", given)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_hold_the_answers_as_sampled_and_the_programs_as_read(finished):
    decode = tiny_tokenizer().decode
    assert finished.pairs
    answers = {
        tuple(sample["ids"])
        for task in rows(finished.folder / "samples_programs.jsonl")
        for sample in task["samples"]
    }
    for pair in finished.pairs:
        assert {pair.chosen_ids, pair.rejected_ids} <= answers
        assert decode(pair.prompt_ids).endswith("<|im_start|>assistant\n")
        chosen = decode(pair.chosen_ids)
        assert chosen.endswith("<|im_end|>")
        assert "```python\n" in chosen
        assert pair.chosen.startswith(f"def {pair.task_id.removeprefix('t/')}(")
    counts = finished.stages["execute"].counts
    assert counts["without_program"] > 0
    assert (counts["renamed_programs"], counts["unwrapped_programs"]) == (0, 0)


def test_the_evaluation_reads_answers_too_and_counts_those_without_a_program(workplace, finished):
    counts = finished.stages["judge_after"].counts
    assert 0 <= counts["without_program"] < counts["programs"] == 8
    write_samples(workplace / "evalplus.jsonl", finished.after)
    solutions = [row["solution"] for row in rows(workplace / "evalplus.jsonl")]
    assert len(solutions) == 8
    assert all(text.startswith(("def ", "# no function ")) for text in solutions)
    assert any(text.startswith("def ") for text in solutions)
    settings = config(workplace, "run")
    gains = measure_result(finished, settings.evaluate.k)
    spent = dict(cost_rows(gains, measure_cost(finished.stages), finished.stages))
    assert "which fail every test" in spent["no program"]
    write_report(settings, finished)
    assert "no program" in (finished.folder / "report.html").read_text()


def test_repairs_read_the_same_samples_again_and_are_counted(workplace, finished):
    samples = finished.folder / "samples_programs.jsonl"
    written = samples.stat().st_mtime_ns
    other = run_code(config(workplace, "run", "prompt.repairs_signature=true"))
    assert samples.stat().st_mtime_ns == written
    before, after = (found.stages["execute"].counts for found in (finished, other))
    assert after["renamed_programs"] > 0
    assert after["without_program"] == before["without_program"] - after["renamed_programs"]
    run_code(config(workplace, "run"))


def test_dstc_puts_a_block_with_a_test_behind_an_answer(workplace):
    result = run_code(config(workplace, "dstc", "rank.scorer=dstc", "objective={name: kto}"))
    decode = tiny_tokenizer().decode
    assert result.pairs
    for pair in result.pairs:
        assert "write one assert that tests it" in decode(pair.prompt_ids)
        for ids in (pair.chosen_ids, pair.rejected_ids):
            assert decode(ids).endswith("\n```<|im_end|>")
            assert f"\nassert {pair.task_id.removeprefix('t/')}(" in decode(ids)


def test_a_server_is_asked_for_whole_answers_and_gives_their_tokens(workplace):
    model = LlamaForCausalLM.from_pretrained(workplace / "model").eval()
    with openai_server.serving(model, tiny_tokenizer()) as server:
        asked = f"generation={{backend: server, url: {server.url}, model: tiny, max_rows: 8}}"
        result = run_code(config(workplace, "served", asked))
        of_programs = [r for r in server.requests if r.get("max_tokens") == 56]
    assert of_programs
    assert not any(request.get("stop") for request in of_programs)
    assert result.stages["sample_programs"].counts["encoded_again"] == 0
    assert all(tiny_tokenizer().decode(p.chosen_ids).endswith("<|im_end|>") for p in result.pairs)


def test_a_dry_run_shows_an_answer_of_the_task_file(workplace):
    shown = "\n".join(text.plain for text in preview(config(workplace, "dry")))
    assert "24 completions" in shown
    assert "```python" in shown


def teach(tasks, folder):
    """Train on answers and tests: right, wrong, right under another name, and without code."""
    tokenizer, model = tiny_tokenizer(), tiny_policy(seed=1)
    answers, tests = [], []
    prompts = zip(
        tasks,
        program_prompts(tasks, tokenizer, PROMPT),
        assert_prompts(tasks, tokenizer, PROMPT),
        strict=True,
    )
    for task, program, test in prompts:
        renamed = task.solution.replace(f"def {task.entry_point}(", "def f(")
        for code in (task.solution, task.wrong[0], renamed):
            answers.append((program, f"Yes:\n```python\n{code}```"))
        answers.append((program, "No."))
        opening = f"assert {task.entry_point}("
        tests += [(test, line.removeprefix(opening)) for line in task.tests]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fit(model, [batch(rows, tokenizer) for rows in (answers, tests)])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def batch(rows, tokenizer):
    """Return ids and labels of prompts with what follows them, padded to one width."""
    encoded = [
        ([*prompt, *tokenizer(text, add_special_tokens=False)["input_ids"], 2], len(prompt))
        for prompt, text in rows
    ]
    width = max(len(ids) for ids, _ in encoded)
    ids = [ids + [3] * (width - len(ids)) for ids, _ in encoded]
    labels = [[-100] * n + ids[n:] + [-100] * (width - len(ids)) for ids, n in encoded]
    return torch.tensor(ids), torch.tensor(labels)


def fit(model, batches):
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(200):
        for ids, labels in batches:
            model(input_ids=ids, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
