"""Run folders: resolved config, environment, seed, and a manifest of stages that can be resumed.

A stage is finished when its inputs hash to what they were and its outputs are intact; starting the
same command again then skips it. While it runs, its files live in a work folder that a kill leaves
behind and the next start takes up; finishing moves them into the run folder in one step each.

    with Run.open(folder, config, seed=0) as run:
        sample = run.stage("sample", {"tasks": tasks_hash, "config": hash_config(config.sampling)})
        if sample.is_due:
            with sample.rows("samples.jsonl", key="task_id") as rows:
                for task in tasks:
                    if task.id not in rows.finished:
                        rows.append({"task_id": task.id, "programs": generate(task)})
            sample.finish(["samples.jsonl"], {"tasks": len(tasks)})
        pairs = run.stage("pair", {"samples": sample.hash})
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel

from trillium.config import dump_config
from trillium.environment import describe_environment
from trillium.errors import BackendError, ConfigError, DataError
from trillium.files import (
    FolderLock,
    RowsFile,
    disk_full_error,
    explain_failed_write,
    hash_json,
    hash_path,
    is_disk_full,
    remove,
    sync_folder,
    write_atomically,
)
from trillium.manifest import Attempt, Manifest, StageRecord, read_manifest

log = logging.getLogger(__name__)


class Run:
    """A locked run folder; use it as a context manager."""

    def __init__(self, folder: Path, manifest: Manifest, lock: FolderLock) -> None:
        """Hold an opened folder; `Run.open` is the way to get one."""
        self.folder = folder
        self.manifest = manifest
        self._lock = lock
        self._has_announced = False
        self._asked: list[str] = []

    @classmethod
    def open(cls, folder: Path, config: BaseModel, *, seed: int) -> "Run":
        """Create or reopen `folder` and save config, environment and seed in it.

        Raises ConfigError when another process works there or the folder holds a run of another
        command, DataError when run.json is damaged.
        """
        with explain_failed_write(folder):
            lock = FolderLock(folder)
        try:
            manifest = read_manifest(folder) if (folder / "run.json").exists() else None
            run = cls(folder, manifest or Manifest(seed=seed), lock)
            run._claim(type(config).__name__)
            run.manifest.seed = seed
            run.manifest.concluded = []
            run._save()
            write_atomically(folder / "config.yaml", dump_config(config))
            environment = json.dumps(describe_environment(), indent=2) + "\n"
            write_atomically(folder / "environment.json", environment)
            for name in list(run.manifest.attempts):
                run._complete_moves(name)
            run._save()
        except BaseException:
            lock.release()
            raise
        return run

    def _claim(self, kind: str) -> None:
        """Say whose run this is from now on; raises ConfigError where it is another command's."""
        before = self.manifest.kind
        if before not in ("", kind):
            raise ConfigError(
                f"{self.folder}: holds the run of another command (its configuration is a {before},"
                f" not a {kind}); choose another output folder, or move this one away"
            )
        self.manifest.kind = kind

    def stage(self, name: str, inputs: Mapping[str, str]) -> "Stage":
        """Begin, continue or skip the stage `name`; `inputs` are hashes or short values by name."""
        self._asked.append(name)
        input_hash = hash_json({"stage": name, "inputs": dict(inputs)})
        record = self.manifest.stages.get(name)
        if record is not None and record.input_hash == input_hash and self._is_intact(name, record):
            self._abandon(name)
            return Stage(self, name, dict(inputs), input_hash, is_due=False)
        if record is not None and record.input_hash != input_hash:
            self._announce_replacement(name, record, inputs)
        self._begin(name, input_hash)
        return Stage(self, name, dict(inputs), input_hash, is_due=True)

    def _announce_replacement(
        self, name: str, record: StageRecord, inputs: Mapping[str, str]
    ) -> None:
        """Say, once per run, that results made with other inputs are about to be replaced."""
        if self._has_announced:
            return
        self._has_announced = True
        changed = dict.fromkeys(key for key, _ in sorted(record.inputs.items() ^ inputs.items()))
        log.warning(
            "%s: stage %s was finished with other inputs (%s); it and what follows are computed "
            "again and replace what is there",
            self.folder,
            name,
            ", ".join(changed),
        )

    def close(self) -> None:
        """Unlock the folder."""
        self._lock.release()

    def __enter__(self) -> "Run":
        """Return the run itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Note a command that came to its end; unlock the folder.

        Unfinished stages stay as they are and continue next time.
        Raises BackendError when what ends the run is a full disk, whichever library found it.
        """
        try:
            if error is None:
                self._conclude()
        finally:
            self.close()
        if isinstance(error, KeyboardInterrupt):
            error.add_note("finished work is kept, the same command continues")
        if error is not None and not isinstance(error, BackendError) and is_disk_full(error):
            raise disk_full_error(self.folder) from error

    def _conclude(self) -> None:
        """Keep which stages this command asked for and finished."""
        finished = self.manifest.stages.keys() - self.manifest.attempts.keys()
        self.manifest.concluded = [name for name in dict.fromkeys(self._asked) if name in finished]
        self._save()

    def _begin(self, name: str, input_hash: str) -> None:
        attempt = self.manifest.attempts.get(name)
        work = self._work(name, input_hash)
        before = 0.0
        if attempt is not None and attempt.input_hash == input_hash and work.is_dir():
            # A killed process wrote no duration; the newest file in its work folder tells.
            written = [path.stat().st_mtime for path in work.rglob("*")]
            before = attempt.seconds_before + max(0.0, max(written, default=0.0) - attempt.started)
        elif attempt is not None:
            remove(self._work(name, attempt.input_hash))
        self.manifest.attempts[name] = Attempt(
            input_hash=input_hash, started=time.time(), seconds_before=before
        )
        with explain_failed_write(work):
            work.mkdir(parents=True, exist_ok=True)
        self._save()

    def _abandon(self, name: str) -> None:
        """Forget an attempt with other inputs that was never finished."""
        attempt = self.manifest.attempts.pop(name, None)
        if attempt is not None:
            remove(self._work(name, attempt.input_hash))
            self._save()

    def _finish(self, name: str, record: StageRecord) -> None:
        attempt = self.manifest.attempts[name]
        self.manifest.attempts[name] = attempt.model_copy(update={"finishing": record})
        self._save()
        self._complete_moves(name)
        self._save()

    def _complete_moves(self, name: str) -> None:
        attempt = self.manifest.attempts[name]
        record = attempt.finishing
        if record is None:
            return
        work = self._work(name, attempt.input_hash)
        previous = self.manifest.stages.get(name)
        for output in previous.outputs if previous else ():
            if output not in record.outputs:
                remove(self.folder / output)
        for output in record.outputs:
            target = self.folder / output
            if (work / output).exists():
                remove(target)
                target.parent.mkdir(parents=True, exist_ok=True)
                (work / output).replace(target)
                sync_folder(target.parent)
        self.manifest.stages[name] = record
        del self.manifest.attempts[name]
        remove(work)

    def _is_intact(self, name: str, record: StageRecord) -> bool:
        for output, sha256 in record.outputs.items():
            path = self.folder / output
            if not path.exists():
                log.warning("%s: is missing; stage %s is computed again", path, name)
                return False
            if hash_path(path) != sha256:
                log.warning("%s: has changed on disk; stage %s is computed again", path, name)
                return False
        return True

    def _work(self, name: str, input_hash: str) -> Path:
        return self.folder / ".work" / f"{name}-{input_hash[:12]}"

    def _save(self) -> None:
        write_atomically(self.folder / "run.json", self.manifest.model_dump_json(indent=2) + "\n")


class Stage:
    """One step of a run: `is_due` says whether there is work, `finish` ends it."""

    def __init__(
        self, run: Run, name: str, inputs: dict[str, str], input_hash: str, *, is_due: bool
    ) -> None:
        """Belong to a run; `Run.stage` is the way to get one."""
        self._run = run
        self._inputs = inputs
        self._input_hash = input_hash
        self.name = name
        self.is_due = is_due

    @property
    def work(self) -> Path:
        """Return the folder for unfinished files and checkpoints; it survives a kill."""
        return self._run._work(self.name, self._input_hash)

    @property
    def record(self) -> StageRecord:
        """Return what the manifest keeps of this stage; raises DataError while it is due."""
        if self.is_due:
            raise DataError(f"{self._run.folder}: stage {self.name} is not finished; run it first")
        return self._run.manifest.stages[self.name]

    @property
    def hash(self) -> str:
        """Return the hash of the outputs, to be an input of the next stage."""
        return self.record.output_hash

    def rows(self, name: str, *, key: str) -> RowsFile:
        """Open a rows file of this stage; `key` is the field that names a row."""
        return RowsFile(self.work / name, key=key)

    def path(self, name: str) -> Path:
        """Return where the output `name` is once the stage is finished."""
        return self._run.folder / name

    def finish(
        self, outputs: Sequence[str], counts: Mapping[str, int | float] | None = None
    ) -> StageRecord:
        """Move `outputs` (files or folders in `work`) into the run and record hashes and counts."""
        attempt = self._run.manifest.attempts[self.name]
        record = StageRecord(
            input_hash=self._input_hash,
            inputs=self._inputs,
            outputs={output: hash_path(self.work / output) for output in outputs},
            seconds=round(attempt.seconds_before + time.time() - attempt.started, 3),
            counts=dict(counts or {}),
        )
        self._run._finish(self.name, record)
        self.is_due = False
        return record


def hash_config(config: BaseModel) -> str:
    """Return the hash of a configuration by its values."""
    return hash_json(config.model_dump(mode="json"))
