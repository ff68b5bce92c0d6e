"""Answers that are asked for once: each is a row on disk, so a kill costs one batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trillium.files import RowsFile, hash_json, read_rows
from trillium.generation.interface import SamplingConfig
from trillium.strategies.asking import Asker, open_asker

_BATCH = 16


@dataclass(frozen=True)
class Participant:
    """Hold who is asked, and the name under which answers are kept."""

    name: str
    asker: Asker


def open_participant(name: str) -> Participant:
    """Return who `name` says: URL#MODEL, or a model of this process."""
    return Participant(name, open_asker(name))


def open_judge(name: str | None, writer: Participant) -> Participant | None:
    """Return who judges; a model that judges what it wrote is loaded once."""
    if name is None or name == writer.name:
        return None if name is None else writer
    return open_participant(name)


@dataclass(frozen=True)
class Answers:
    """Ask what has no answer in the file yet, sixteen questions at a time.

    The sixteen are cut from all questions, and kept at once: a command that was killed goes on with
    the batches, and so the answers, that it would have had.
    """

    file: RowsFile
    known: dict[str, str]
    seed: int

    def ask(
        self, asker: Asker, keys: Sequence[str], questions: Sequence[str], sampling: SamplingConfig
    ) -> list[str]:
        """Return one answer per question, from the file where its key is known."""
        asked = list(zip(keys, questions, strict=True))
        for start in range(0, len(asked), _BATCH):
            due = {k: q for k, q in asked[start : start + _BATCH] if k not in self.known}
            if not due:
                continue
            seed = self.seed + int(hash_json(list(due))[:8], 16)
            answers = asker.answer(list(due.values()), sampling, seed=seed)
            found = dict(zip(due, answers, strict=True))
            self.file.extend([{"key": key, "answer": answer} for key, answer in found.items()])
            self.known.update(found)
        return [self.known[key] for key in keys]

    def key(self, asked: str, question: str, place: object, sampling: SamplingConfig) -> str:
        """Return the key of one answer: who is asked what, in which place, how, by which seed."""
        how = sampling.model_dump(mode="json", exclude={"n_samples"})
        return hash_json([asked, question, place, how, self.seed])

    def draw(
        self, asked: Participant, questions: Sequence[str], sampling: SamplingConfig
    ) -> list[list[str]]:
        """Return `sampling.n_samples` answers to each question, each drawn by itself.

        Another model, question, seed or way of sampling is asked anew; more samples are asked for
        in addition.
        """
        n = sampling.n_samples
        keys = [
            self.key(asked.name, question, number, sampling)
            for question in questions
            for number in range(n)
        ]
        found = self.ask(asked.asker, keys, [q for q in questions for _ in range(n)], sampling)
        return [found[start : start + n] for start in range(0, len(found), n)]


@contextmanager
def open_answers(path: Path, *, seed: int) -> Iterator[Answers]:
    """Open the file that answers are kept in and taken from."""
    with RowsFile(path, key="key") as file:
        known = {str(row["key"]): str(row["answer"]) for row in read_rows(path)}
        yield Answers(file, known, seed)
