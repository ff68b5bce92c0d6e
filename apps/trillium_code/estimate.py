"""How long a run still takes: a guess at first, then what its own stages measured."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from trillium.manifest import StageRecord
from trillium.progress import format_duration

from trillium_code.config import CodeConfig
from trillium_code.preparation import RunTasks

# Units per second with a model of 135 M parameters, on two cores and on a data-centre GPU beside
# eight cores; corrected as soon as a stage of any kind has been measured. Tokens for sampling and
# training, tasks for execution.
_RATES = {"sample": 120.0, "execute": 3.0, "align": 250.0}
_GPU_RATES = {"sample": 6000.0, "execute": 15.0, "align": 6000.0}
_TOKENS_PER_PROGRAM, _TOKENS_PER_TEST, _TOKENS_PER_PAIR, _PAIRS_PER_TASK = 30, 70, 150, 1.5


@dataclass(frozen=True)
class Work:
    """Hold the amount of work of one stage, in units of its kind."""

    stage: str
    kind: str
    amount: float


def plan_work(config: CodeConfig, tasks: RunTasks, stages: Mapping[str, StageRecord]) -> list[Work]:
    """List the work of a run; numbers that finished stages counted replace guesses."""
    n_train, n_held_out = len(tasks.train), len(tasks.held_out)
    counts = {name: record.counts for name, record in stages.items()}
    drawn = counts.get("sample_programs", counts.get("sample_before", {}))
    per_program = drawn.get("tokens", _TOKENS_PER_PROGRAM) / max(1, drawn.get("completions", 1))
    pairs = counts.get("pair", {}).get("pairs", n_train * _PAIRS_PER_TASK)
    epochs = config.train.num_train_epochs
    steps = config.train.max_steps
    trained = pairs * epochs if steps is None else steps * config.train.trees_per_step()
    evaluated = n_held_out * config.evaluate.sampling.n_samples * per_program
    programs = n_train * config.programs.n_samples * per_program
    tests = n_train * config.tests.n_samples * _TOKENS_PER_TEST
    work = []
    for number in range(1, config.rounds + 1):
        tag = "" if number == 1 else f"_{number}"
        align = "" if number == config.rounds else f"_{number}"
        work += [
            Work(f"sample_programs{tag}", "sample", programs),
            Work(f"sample_tests{tag}", "sample", tests),
            Work(f"execute{tag}", "execute", n_train),
            Work(f"align{align}", "align", trained * _TOKENS_PER_PAIR),
        ]
    return [
        *work,
        Work("sample_before", "sample", evaluated),
        Work("judge_before", "execute", n_held_out),
        Work("sample_after", "sample", evaluated),
        Work("judge_after", "execute", n_held_out),
    ]


def machine_rates() -> Mapping[str, float]:
    """Return what this machine is expected to do per second, by kind of work."""
    return _GPU_RATES if torch.cuda.is_available() else _RATES


def seconds_left(
    work: Sequence[Work], seconds: Mapping[str, float], rates: Mapping[str, float] = _RATES
) -> float:
    """Return the expected seconds of the stages that are not in `seconds` yet.

    A kind of work goes as fast as its finished stages went, amount over seconds; until there is
    one, as fast as `rates` says, corrected by how right that was for the other kinds.
    """
    finished = [item for item in work if item.stage in seconds]
    expected = sum(item.amount / rates[item.kind] for item in finished)
    spent = sum(seconds[item.stage] for item in finished)
    slowness = spent / expected if expected > 0 and spent > 0 else 1.0
    left = 0.0
    for item in work:
        if item.stage not in seconds:
            same = [other for other in finished if other.kind == item.kind]
            amount, spent = sum(o.amount for o in same), sum(seconds[o.stage] for o in same)
            known = amount > 0 and spent > 0
            left += item.amount / (amount / spent if known else rates[item.kind] / slowness)
    return left


def announce(
    name: str, config: CodeConfig, tasks: RunTasks, finished: Mapping[str, StageRecord]
) -> None:
    """Say on stderr which stage begins, how long the run has taken, and about what is left."""
    seconds = {stage: record.seconds for stage, record in finished.items()}
    spent = format_duration(sum(seconds.values()))
    work = plan_work(config, tasks, finished)
    left = format_duration(seconds_left(work, seconds, machine_rates()))
    print(f"{name}: begins; {spent} so far, about {left} left", file=sys.stderr, flush=True)
