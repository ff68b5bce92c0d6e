"""Invent tasks from code snippets: snippet -> concepts -> a new function's signature and docstring.

The way of OSS-Instruct and CodeDPO (arXiv 2410.05605, Section 3.1), with prompts that a base model
can continue. Invented tasks have no hidden tests: they are for training, where the policy writes
its own. Nothing here judges whether a task is sensible; one that no program agrees on gives no
pair.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase
from trillium.files import hash_json, write_atomically
from trillium.generation import Generator, SamplingConfig
from trillium.generation.server import ServerGenerator
from trillium.runs import Run, Stage, hash_config
from trillium.tokenize import tokenize_prompts

from trillium_code.chat_sampling import ask_stage
from trillium_code.contamination import drop_repeats, find_duplicates
from trillium_code.invention_config import InventionConfig
from trillium_code.invention_prompts import (
    concept_prompt,
    concept_question,
    parse_concepts,
    parse_task,
    read_concept_answer,
    read_task_answer,
    task_prompt,
    task_question,
)
from trillium_code.models import Models
from trillium_code.prompt_config import SHOTS
from trillium_code.records import TaskSamples
from trillium_code.sampling import Prompts, sample_stage
from trillium_code.snippets import Snippet, draw_snippets
from trillium_code.task_files import read_task_file
from trillium_code.tasks import CodeTask

_TASKS = "tasks.jsonl"


@dataclass(frozen=True)
class Invention:
    """Say where the invented tasks are and what became of everything that was written."""

    path: Path
    counts: dict[str, int | float]


def invent_tasks(config: InventionConfig) -> Invention:
    """Do what is missing of a run of inventions; the same command again continues.

    Raises DataError for snippets or evaluation sets that cannot be used, BackendError for a server
    that does not answer.
    """
    snippets = draw_snippets(config.snippets, config.n_snippets, seed=config.seed)
    evaluation = [task for source in config.against for task in read_task_file(source).tasks]
    with Run.open(config.output, config, seed=config.seed) as run:
        return _Inventing(config, run, snippets, evaluation).finish()


class _Inventing:
    """The stages of one run."""

    def __init__(
        self,
        config: InventionConfig,
        run: Run,
        snippets: Sequence[Snippet],
        evaluation: Sequence[CodeTask],
    ) -> None:
        self._config, self._run = config, run
        self._snippets, self._evaluation = snippets, evaluation
        self._models = Models(config.policy, seed=config.seed, max_rows=config.max_rows)

    def finish(self) -> Invention:
        """Name concepts, invent tasks, and keep those that are whole, new and not evaluated."""
        config = self._config
        chats = config.server is not None and config.server.endpoint == "chat"
        ask = concept_question if chats else concept_prompt
        _, answers = self._sample(
            "concepts",
            [snippet.id for snippet in self._snippets],
            [ask(snippet.code) for snippet in self._snippets],
            config.concepts,
        )
        concepts = {
            answer.task_id: parse_concepts(self._read(answer.samples[0].text, read_concept_answer))
            for answer in answers
            if answer.samples
        }
        concepts = {id: found for id, found in concepts.items() if found}
        asked = [(task_question if chats else task_prompt)(one) for one in concepts.values()]
        written, drafts = self._sample("tasks", list(concepts), asked, config.tasks)
        stage = self._run.stage(
            "keep",
            {
                "tasks": written.hash,
                "evaluation": hash_json([task.hash for task in self._evaluation]),
                "max_overlap": str(config.max_overlap),
                "repeats": "equal statements too",
            },
        )
        if stage.is_due:
            counts: Counter[str] = Counter(snippets=len(answers), with_concepts=len(concepts))
            kept = self._keep(drafts, counts)
            lines = [_row(task, concepts) for task in kept]
            write_atomically(stage.work / _TASKS, "".join(lines))
            stage.finish([_TASKS], dict(counts))
        return Invention(stage.path(_TASKS), dict(stage.record.counts))

    def _keep(self, drafts: Sequence[TaskSamples], counts: Counter[str]) -> list[CodeTask]:
        """Return the usable tasks and count why the others are not."""
        parsed: list[CodeTask] = []
        for draft in drafts:
            for number, sample in enumerate(draft.samples):
                text = self._read(sample.text, read_task_answer)
                found = parse_task(text, id=f"{draft.task_id}/{number}")
                counts["invented"] += 1
                if isinstance(found, CodeTask):
                    parsed.append(found)
                else:
                    counts[found] += 1
        shown = {shot.entry_point for shot in SHOTS}
        fresh = [task for task in parsed if task.entry_point not in shown]
        distinct = drop_repeats(fresh, limit=self._config.max_overlap)
        near = find_duplicates(distinct, self._evaluation, limit=self._config.max_overlap)
        kept = [task for task in distinct if task.id not in near]
        counts["repeats"] = len(parsed) - len(distinct)
        counts["near_evaluation_tasks"] = len(near)
        counts["kept"] = len(kept)
        return kept

    def _sample(
        self, name: str, ids: Sequence[str], texts: Sequence[str], sampling: SamplingConfig
    ) -> tuple[Stage, list[TaskSamples]]:
        config = self._config
        writer = self._models.identity if config.server is None else hash_config(config.server)
        stage = self._run.stage(
            f"sample_{name}",
            {
                "writer": writer,
                "prompts": hash_json([list(ids), list(texts)]),
                "sampling": hash_config(sampling),
                "rows": str(config.max_rows),
                "seed": str(config.seed),
            },
        )

        output = f"samples_{name}.jsonl"
        if config.server is not None and config.server.endpoint == "chat":
            free = sampling.model_copy(update={"stop": ()})  # stops are for continued prompts
            server = config.server
            return stage, ask_stage(stage, output, ids, texts, free, server, seed=config.seed)

        def render() -> Prompts:
            prompts = tokenize_prompts(list(texts), self._models.tokenizer)
            room = sampling.max_new_tokens
            return Prompts(prompts, self._models.fitting(prompts, ids, max_new_tokens=room))

        opened = self._open(self._models.tokenizer) if stage.is_due else self._models.before.open
        return stage, sample_stage(stage, output, ids, render, sampling, opened, seed=config.seed)

    def _read(self, text: str, read_chat: Callable[[str], str]) -> str:
        """Return what a completion would have said, whoever wrote."""
        server = self._config.server
        return read_chat(text) if server is not None and server.endpoint == "chat" else text

    def _open(self, tokenizer: PreTrainedTokenizerBase) -> Callable[[], Generator]:
        server = self._config.server
        if server is None:
            return self._models.before.open
        return lambda: ServerGenerator(server, tokenizer)


def _row(task: CodeTask, concepts: dict[str, tuple[str, ...]]) -> str:
    snippet = task.id.rsplit("/", 1)[0]
    row = {
        "id": f"invented/{task.id}",
        "entry_point": task.entry_point,
        "prompt": task.header,
        "idea": ", ".join(concepts[snippet]),
    }
    return json.dumps(row, ensure_ascii=False) + "\n"
