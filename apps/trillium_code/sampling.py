"""The stage that samples: prompts in, completions with token ids out, resumable batch by batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from trillium.environment import peak_memory_bytes
from trillium.errors import BackendError
from trillium.files import read_rows
from trillium.generation import (
    Completion,
    Generator,
    PromptBatch,
    SamplingConfig,
    assemble,
    generate_batches,
)
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_code.records import Sample, TaskSamples, read_records, to_row, write_records

_BATCHES = "batches.jsonl"


@dataclass(frozen=True)
class Prompts:
    """Hold the prompts of a stage; one that does not fit the model sets its task aside."""

    ids: Sequence[tuple[int, ...]]
    fits: Sequence[bool]


def sample_stage(
    stage: Stage,
    output: str,
    task_ids: Sequence[str],
    render_prompts: Callable[[], Prompts],
    sampling: SamplingConfig,
    open_generator: Callable[[], Generator],
    *,
    seed: int,
) -> list[TaskSamples]:
    """Return the completions of each prompt; when the stage is due, sample what is missing.

    Every generated batch goes to disk at once and has a seed of its own, so that a stage that was
    killed continues to the same bytes. The model is opened only when there is something to sample.
    A task whose prompt does not fit has no completions and is counted, and so are completions whose
    ids were encoded again from the text of a server. Raises BackendError when a batch does not fit
    on the GPU.
    """
    if stage.is_due:
        prompts, generator = render_prompts(), open_generator()
        fitting = [ids for ids, fits in zip(prompts.ids, prompts.fits, strict=True) if fits]
        plan = generator.plan(fitting, n_samples=sampling.n_samples, seed=seed)
        with _explain_memory(stage.name, plan):
            _generate(stage, plan, sampling, generator)
        drawn, n_encoded_again = [], 0
        for row in read_rows(stage.work / _BATCHES):
            drawn.append(_completions(row))
            n_encoded_again += int(str(row.get("encoded_again", 0)))
        completions = iter(assemble(len(fitting), plan, drawn))
        records = [
            TaskSamples(
                id,
                ids,
                tuple(Sample(c.ids, c.text, c.finish) for c in (next(completions) if fits else ())),
            )
            for id, ids, fits in zip(task_ids, prompts.ids, prompts.fits, strict=True)
        ]
        write_records(stage.work / output, records)
        counts = _count(records, n_too_long=len(records) - len(fitting))
        stage.finish([output], {**counts, "encoded_again": n_encoded_again})
    return read_records(stage.path(output), TaskSamples)


def _count(records: Sequence[TaskSamples], *, n_too_long: int) -> dict[str, int]:
    every = [sample for record in records for sample in record.samples]
    return {
        "completions": len(every),
        "tokens": sum(len(sample.ids) for sample in every),
        "cut_off": sum(sample.finish == "length" for sample in every),
        "too_long_prompts": n_too_long,
        "peak_memory_bytes": peak_memory_bytes(),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated(),
    }


def _generate(
    stage: Stage, plan: Sequence[PromptBatch], sampling: SamplingConfig, generator: Generator
) -> None:
    sizes = [len(batch.prompts) * batch.n_samples for batch in plan]
    with stage.rows(_BATCHES, key="batch") as rows:
        done = {number for number in range(len(plan)) if str(number) in rows.finished}
        with Progress(
            stage.name.replace("_", " "),
            n_total=sum(sizes),
            n_done=sum(sizes[number] for number in done),
            unit="completions",
        ) as progress:
            due = [number for number in range(len(plan)) if number not in done]
            results = generate_batches(generator, [plan[number] for number in due], sampling)
            for number, drawn in zip(due, results, strict=True):
                n_encoded_again = sum(one.is_encoded_again for group in drawn for one in group)
                row = {"batch": str(number), "encoded_again": n_encoded_again}
                rows.append({**row, "completions": _to_json(drawn)})
                progress.advance(sizes[number])


@contextmanager
def _explain_memory(name: str, plan: Sequence[PromptBatch]) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        n_rows = max(len(batch.prompts) * batch.n_samples for batch in plan)
        reason = str(error).split(". ")[0]
        raise BackendError(
            f"{name}: {n_rows} completions decoded together do not fit on the GPU ({reason}); "
            "lower max_rows"
        ) from error


def _to_json(drawn: Sequence[Sequence[Completion]]) -> list[list[dict[str, object]]]:
    return [[to_row(Sample(c.ids, c.text, c.finish)) for c in group] for group in drawn]


def _completions(row: dict[str, object]) -> list[list[Completion]]:
    groups = row["completions"]
    assert isinstance(groups, list)
    return [
        [Completion(tuple(c["ids"]), c["text"], c["finish"]) for c in group] for group in groups
    ]
