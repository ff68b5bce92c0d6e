"""The stage that samples: prompts in, completions with token ids out, resumable batch by batch."""

from collections.abc import Callable, Sequence

from trillium.files import read_rows
from trillium.generation import Completion, Generator, PromptBatch, SamplingConfig, assemble
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_code.memory import peak_memory_bytes
from trillium_code.records import Sample, TaskSamples, read_records, to_row, write_records

_BATCHES = "batches.jsonl"


def sample_stage(
    stage: Stage,
    output: str,
    task_ids: Sequence[str],
    render_prompts: Callable[[], Sequence[tuple[int, ...]]],
    sampling: SamplingConfig,
    open_generator: Callable[[], Generator],
    *,
    seed: int,
) -> list[TaskSamples]:
    """Return the completions of each prompt; when the stage is due, sample what is missing.

    Every generated batch goes to disk at once and has a seed of its own, so that a stage that was
    killed continues to the same bytes. The model is opened only when there is something to sample.
    """
    if stage.is_due:
        prompts, generator = render_prompts(), open_generator()
        plan = generator.plan(prompts, n_samples=sampling.n_samples, seed=seed)
        _generate(stage, plan, sampling, generator)
        drawn = [_completions(row) for row in read_rows(stage.work / _BATCHES)]
        completions = assemble(len(prompts), plan, drawn)
        records = [
            TaskSamples(id, prompt, tuple(Sample(c.ids, c.text, c.finish) for c in group))
            for id, prompt, group in zip(task_ids, prompts, completions, strict=True)
        ]
        write_records(stage.work / output, records)
        every = [completion for group in completions for completion in group]
        counts = {
            "completions": len(every),
            "tokens": sum(len(completion.ids) for completion in every),
            "cut_off": sum(completion.finish == "length" for completion in every),
            "peak_memory_bytes": peak_memory_bytes(),
        }
        stage.finish([output], counts)
    return read_records(stage.path(output), TaskSamples)


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
            for number, batch in enumerate(plan):
                if number not in done:
                    drawn = generator.generate_batch(batch, sampling)
                    rows.append({"batch": str(number), "completions": _to_json(drawn)})
                    progress.advance(sizes[number])


def _to_json(drawn: Sequence[Sequence[Completion]]) -> list[list[dict[str, object]]]:
    return [[to_row(Sample(c.ids, c.text, c.finish)) for c in group] for group in drawn]


def _completions(row: dict[str, object]) -> list[list[Completion]]:
    groups = row["completions"]
    assert isinstance(groups, list)
    return [
        [Completion(tuple(c["ids"]), c["text"], c["finish"]) for c in group] for group in groups
    ]
