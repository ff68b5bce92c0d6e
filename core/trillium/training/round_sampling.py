"""The first states of a round that samples: generate completions, then score them.

Every batch, and every scored prompt, goes to disk at once, so that a stage that was killed
continues where it was and ends in the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter

from trillium.errors import DataError
from trillium.files import RowsFile, read_rows
from trillium.generation.interface import (
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
    assemble,
)
from trillium.progress import Progress
from trillium.runs import Stage
from trillium.training.recipes.recipe import Judge
from trillium.training.round_rows import (
    Candidates,
    Prompt,
    completions_from_json,
    completions_to_json,
)

_BATCHES = "batches.jsonl"


def draw_batches(
    rows: RowsFile,
    plan: Sequence[PromptBatch],
    sampling: SamplingConfig,
    generator: Generator,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[list[list[Completion]]]:
    """Sample the batches of `plan` that `rows` lacks; returns every batch, for `assemble`.

    `advance` is called after each batch that is sampled.
    """
    for index, batch in enumerate(plan):
        if str(index) not in rows.finished:
            drawn = generator.generate_batch(batch, sampling)
            rows.append({"batch": str(index), "completions": completions_to_json(drawn)})
            advance()
    return [completions_from_json(row["completions"]) for row in read_rows(rows.path)]


def score_prompts(
    rows: RowsFile,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    judge: Judge,
    *,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Ask the judge about every prompt that has no scores in `rows` yet.

    Raises DataError when the judge does not return one finite number per completion.
    """
    for prompt, completions in zip(prompts, samples, strict=True):
        if prompt.id not in rows.finished:
            scores = [float(score) for score in judge.score(prompt, completions)]
            if len(scores) != len(completions) or not all(map(math.isfinite, scores)):
                raise DataError(
                    f"judge {judge.identity}: gave {scores} for prompt {prompt.id} (needs one "
                    f"finite number for each of {len(completions)} completions); correct the "
                    "judge and run again, what was scored before is kept"
                )
            rows.append({"prompt": prompt.id, "scores": scores})
            advance()


def read_scores(path: Path) -> list[tuple[float, ...]]:
    """Return the scores of each prompt."""
    return [_SCORES.validate_python(row["scores"]) for row in read_rows(path)]


def generate_stage(
    stage: Stage,
    output: str,
    prompts: Sequence[Prompt],
    plan: Sequence[PromptBatch],
    sampling: SamplingConfig,
    generator: Generator,
) -> None:
    """Sample what is missing of `plan` and finish the stage: one row per prompt in `output`."""
    title = stage.name.replace("_", " ")
    with (
        stage.rows(_BATCHES, key="batch") as rows,
        Progress(title, n_total=len(plan), n_done=len(rows.finished), unit="batches") as bar,
    ):
        batches = draw_batches(rows, plan, sampling, generator, advance=bar.advance)
    groups = assemble(len(prompts), plan, batches)
    with stage.rows(output, key="prompt") as rows:
        for prompt, group in zip(prompts, groups, strict=True):
            if prompt.id not in rows.finished:
                rows.append({"prompt": prompt.id, "completions": completions_to_json([group])})
    every = [completion for group in groups for completion in group]
    counts = {
        "completions": len(every),
        "tokens": sum(len(completion.ids) for completion in every),
        "cut_off": sum(completion.finish == "length" for completion in every),
    }
    stage.finish([output], counts)


def read_samples(path: Path) -> list[list[Completion]]:
    """Return the completions of each prompt."""
    return [completions_from_json(row["completions"])[0] for row in read_rows(path)]


def score_stage(
    stage: Stage,
    output: str,
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Completion]],
    judge: Judge,
) -> None:
    """Score what has no scores yet and finish the stage; raises what `score_prompts` raises."""
    title = stage.name.replace("_", " ")
    with (
        stage.rows(output, key="prompt") as rows,
        Progress(title, n_total=len(prompts), n_done=len(rows.finished), unit="prompts") as bar,
    ):
        score_prompts(rows, prompts, samples, judge, advance=bar.advance)
    stage.finish([output], {"scores": sum(len(completions) for completions in samples)})


def read_candidates(prompts: Sequence[Prompt], samples: Path, scores: Path) -> list[Candidates]:
    """Return completions and scores of each prompt."""
    return [
        Candidates(prompt, tuple(completions), each)
        for prompt, completions, each in zip(
            prompts, read_samples(samples), read_scores(scores), strict=True
        )
    ]


_SCORES = TypeAdapter(tuple[float, ...])
