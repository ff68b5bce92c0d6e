"""The stage that rolls out: what it counts when it is killed between its chunks."""

import pytest
from pydantic import BaseModel
from trillium.generation.server import ServerConfig, ServerGenerator
from trillium.runs import Run
from trillium_math.agent.config import AgentConfig, ToolConfig, TurnSampling
from trillium_math.agent.stage import rollout_stage
from trillium_math.problems import Problem

PROBLEMS = [Problem(str(n), f"{n} * {n}?", str(n * n)) for n in range(3)]
AGENT = AgentConfig(instruction="{question}", tool=ToolConfig(min_level=1))


class Nothing(BaseModel):
    """A configuration with nothing in it."""


@pytest.fixture
def run_stage(policy, tokenizer, say):
    """Return a function that rolls out a problem a chunk, and is killed after some of them."""

    def script(text):
        if "output" in text:
            return say(rf"\boxed{{{text.rpartition('```output')[2].split()[0]}}}")
        asked = text.partition("user\n")[2].partition("?")[0]
        return say(f"```python\nprint({asked})\n```")

    policy.script = script
    generator = ServerGenerator(ServerConfig(url=policy.url, model="scripted"), tokenizer)

    def run(folder, n_chunks=3):
        left = iter(range(n_chunks))

        def open_work(roller):
            def work(problems, seed):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return roller.roll_out(problems, generator, TurnSampling(n_samples=1), seed=seed)

            return work

        with Run.open(folder, Nothing(), seed=0) as opened:
            stage = opened.stage("sample", {})
            rollout_stage(
                stage, "sample.jsonl", PROBLEMS, lambda: tokenizer, open_work, AGENT,
                policy="scripted", chunk_size=1, seed=0,
            )  # fmt: skip
            return dict(stage.record.counts)

    return run


def test_a_stage_that_is_killed_counts_what_every_process_did(run_stage, tmp_path):
    whole = run_stage(tmp_path / "whole")
    assert (whole["right"], whole["tool_runs"], whole["grader_timeouts"]) == (3, 3, 0)
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "killed", n_chunks=2)
    again = run_stage(tmp_path / "killed")
    assert {**again, "peak_memory_bytes": 0} == {**whole, "peak_memory_bytes": 0}
    files = [tmp_path / name / "sample.jsonl" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
