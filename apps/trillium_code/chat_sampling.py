"""The stage that asks a chat server: questions in, answers as text out, resumable one by one."""

from collections.abc import Sequence

from trillium.generation import SamplingConfig
from trillium.generation.chat import ChatServer
from trillium.generation.config import ServerConfig
from trillium.generation.parallel import map_ahead
from trillium.progress import Progress
from trillium.runs import Stage

from trillium_code.records import Sample, TaskSamples, read_records, to_row

_SEEDS_PER_QUESTION = 1000


def ask_stage(
    stage: Stage,
    output: str,
    ids: Sequence[str],
    questions: Sequence[str],
    sampling: SamplingConfig,
    server: ServerConfig,
    *,
    seed: int,
) -> list[TaskSamples]:
    """Return the answers to each question, without token ids; when the stage is due, ask the rest.

    Raises BackendError when the server does not answer.
    """
    if stage.is_due:
        chat = ChatServer(server)

        def ask(number: int) -> TaskSamples:
            own = seed + _SEEDS_PER_QUESTION * number
            drawn = chat.draw(questions[number], sampling, seed=own)
            samples = tuple(Sample((), answer.text, answer.finish) for answer in drawn)
            return TaskSamples(ids[number], (), samples)

        with stage.rows(output, key="task_id") as rows:
            due = [number for number, id in enumerate(ids) if id not in rows.finished]
            with Progress(
                stage.name.replace("_", " "),
                n_total=len(ids),
                n_done=len(ids) - len(due),
                unit="questions",
            ) as progress:
                for record in map_ahead(ask, due, n_ahead=server.n_requests):
                    rows.append(to_row(record))
                    progress.advance()
        answered = read_records(stage.work / output, TaskSamples)
        every = [sample for record in answered for sample in record.samples]
        n_cut_off = sum(sample.finish == "length" for sample in every)
        stage.finish([output], {"completions": len(every), "cut_off": n_cut_off})
    return read_records(stage.path(output), TaskSamples)
