"""`trillium train`: from a preference file to an adapter in a run folder.

Everything that can be wrong with the run file, the rows and their fit to the objective is found
before a model is loaded; a dry run ends there.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.text import Text
from transformers import PreTrainedTokenizerBase

from trillium.assets import find_model
from trillium.diagnostics.watch import LOOKS
from trillium.errors import ConfigError, DataError
from trillium.files import hash_json, hash_path
from trillium.objectives.table import needs_of
from trillium.policies.adapters import read_adapter_config
from trillium.policies.load import check_policy, load_policy
from trillium.policies.tokenizer import load_tokenizer
from trillium.preview import render_tree
from trillium.runs import Run, hash_config
from trillium.scoring.cache import open_cache
from trillium.scoring.fingerprint import fingerprint_base
from trillium.scoring.model_files import hash_model
from trillium.scoring.reference import open_reference
from trillium.tokenize import TokenizedDataset
from trillium.tokenize_report import TokenizeReport
from trillium.training.align import AlignResult, align
from trillium.training.config import AlignConfig, TrainConfig
from trillium.training.fit import check_fit
from trillium.training.journal import read_evaluations, read_metrics
from trillium.training.processes import ALONE, Processes
from trillium.training.round_rows import hash_trees
from trillium.training.rows import read_trees
from trillium.training.run_config import TrainRun
from trillium.training.sharding import any_process, check_shardable, shard_base
from trillium.trees import TokenTree

OUTPUTS = ("adapter", "metrics.jsonl", "timing.jsonl")


@dataclass(frozen=True)
class Prepared:
    """Hold what a run trains and evaluates on, what became of the rows, and where the base is.

    `n_unused` counts rows that are held out and that no step of training looks at.
    """

    trees: tuple[TokenTree, ...]
    held_out: tuple[TokenTree, ...]
    n_unused: int
    report: TokenizeReport
    tokenizer: PreTrainedTokenizerBase
    base: Path

    def describe(self) -> str:
        """Return the counts of the rows, a line for each file."""
        lines = [f"rows: {self.report.summary()}"]
        if self.held_out:
            lines.append(f"held out: {len(self.held_out):,} rows")
        if self.n_unused:
            lines.append(
                f"held out: {self.n_unused:,} rows, which only trillium diagnose reads; set "
                "train.eval_steps to evaluate on them"
            )
        return "\n".join(lines)

    def preview(self) -> Text:
        """Return the counts and the first tree in colour."""
        text = Text(f"{self.describe()}\n")
        return text.append_text(render_tree(self.trees[0], self.tokenizer))


def prepare(config: TrainRun, *, shards: bool = False) -> Prepared:
    """Read, tokenise and check the rows; loads a tokenizer and no model.

    `shards` says that the weights of the base will be spread over processes.
    """
    if shards:
        check_shardable(config.policy, config.train)
    if needs_of(config.objective).reference and config.reference == "none":
        raise ConfigError(
            f"reference is none and objective {config.objective.name} compares with one; "
            "set reference=base, or choose an objective that needs none"
        )
    check_policy(config.policy, device="cpu" if shards else None)
    for folder in _adapters(config):
        read_adapter_config(folder, base_name=config.policy.base)
    source = find_model(config.policy.base)
    tokenizer = load_tokenizer(source)

    def read(path: Path) -> TokenizedDataset:
        found = read_trees(path, config.objective, config.data.tokenize, tokenizer)
        _check_model_takes(path, found.trees, Path(source))
        return found

    def check(path: Path, trees: Sequence[TokenTree]) -> None:
        n_held_out = len(held_out)
        check_fit(config.objective, trees, config.train, n_held_out=n_held_out, where=str(path))

    rows = read(config.data.path)
    held_out: tuple[TokenTree, ...] = ()
    if config.data.held_out is not None:
        held_out = read(config.data.held_out).trees
        check(config.data.held_out, held_out)
    check(config.data.path, rows.trees)
    used = held_out if _looks_at_held_out(config.train) else ()
    n_unused = len(held_out) - len(used)
    return Prepared(rows.trees, used, n_unused, rows.report, tokenizer, Path(source))


def run_training(
    config: TrainRun, say: Callable[[str], None], processes: Processes = ALONE
) -> AlignResult:
    """Train as the run file says, or continue, or only read the result when all is done.

    Every process that was launched calls this, within `joined_processes`.
    """
    prepared = prepare(config, shards=processes.shards)
    if processes.is_first:
        say(prepared.describe())
        counts = _run_stage(config, prepared, processes, say)
    else:
        # The first process owns the folder; the others train where it says, if at all.
        work: Path | None = processes.tell()
        if work is not None:
            _align(config, prepared, work, lambda _: None, processes)
        counts = {}
    counts = processes.tell(counts)
    return AlignResult(
        adapter=config.output / "adapter",
        n_steps=int(counts["steps"]),
        stopped_early=bool(counts["stopped_early"]),
        metrics=tuple(read_metrics(config.output)),
        evaluations=tuple(read_evaluations(config.output)),
    )


def input_hashes(config: TrainRun, prepared: Prepared, n_processes: int) -> dict[str, str]:
    """Name all that the result depends on; anything else is trained anew.

    `tokens` are what tokenizer and template make of the rows.
    """
    inputs = {
        "data": hash_path(config.data.path),
        "tokens": _hash_tokens([*prepared.trees, *prepared.held_out]),
        "config": hash_config(_what_counts(config)),
        "base": hash_model(str(prepared.base)),
    }
    if n_processes > 1:
        inputs["trees_per_step"] = str(config.train.trees_per_step(n_processes))
    if config.data.held_out is not None and prepared.held_out:
        inputs["held_out"] = hash_path(config.data.held_out)
    for place, folder in enumerate(_adapters(config)):
        inputs[f"adapter {place}"] = hash_path(folder)
    return inputs


def _hash_tokens(trees: Sequence[TokenTree]) -> str:
    # One by one: as JSON, all of them take several times the memory that they take as trees.
    return hash_json([hash_trees([tree]) for tree in trees])


def _run_stage(
    config: TrainRun, prepared: Prepared, processes: Processes, say: Callable[[str], None]
) -> dict[str, int | float]:
    """Train in the run folder, unless that is done, and tell the other processes where."""
    with Run.open(config.output, config, seed=config.train.seed) as run:
        stage = run.stage("align", input_hashes(config, prepared, processes.n))
        processes.tell(stage.work if stage.is_due else None)
        if stage.is_due:
            result = _align(config, prepared, stage.work, say, processes)
            outputs = [*OUTPUTS, *(["evaluations.jsonl"] if result.evaluations else [])]
            outputs += [LOOKS] if config.train.overoptimisation_steps else []
            stage.finish(
                outputs,
                {"steps": result.n_steps, "stopped_early": int(result.stopped_early)},
            )
        return dict(stage.record.counts)


def _align(
    config: TrainRun,
    prepared: Prepared,
    work: Path,
    say: Callable[[str], None],
    processes: Processes,
) -> AlignResult:
    # What is to be spread is loaded into main memory: it may fit no device as a whole.
    place = "cpu" if processes.shards else None
    policy = load_policy(config.policy, device=place, seed=config.train.seed)
    with open_cache() as cache:
        reference = open_reference(
            config.reference,
            policy.model,
            cache=cache,
            folder=policy.folder,
            ask_all=any_process if processes.shards else bool,
        )
        base = None
        if reference is None:
            base = fingerprint_base(policy.model, folder=policy.folder, cache=cache)
        if processes.shards:
            # The reference takes its name from whole weights, as the base does.
            _ = reference and reference.identity
            shard_base(policy.model)
        say(f"reference: {reference.describe() if reference else 'none'}")
        return align(
            AlignConfig(objective=config.objective, train=config.train),
            prepared.trees,
            policy.model,
            reference,
            work,
            held_out=prepared.held_out,
            title="train",
            base=base,
        )


def _what_counts(config: TrainRun) -> TrainRun:
    """Return the configuration less what does not change the result: where things lie."""
    data = config.data.model_copy(update={"path": Path(), "held_out": None})
    return config.model_copy(update={"output": Path(), "data": data})


def _looks_at_held_out(train: TrainConfig) -> bool:
    return train.eval_steps is not None or train.overoptimisation_steps is not None


def _adapters(config: TrainRun) -> list[Path]:
    """Return the adapter folders that the run reads."""
    started_from = [config.policy.adapter] if config.policy.adapter else []
    kind, _, folder = config.reference.partition(":")
    return [*started_from, *([Path(folder)] if kind == "adapter" else [])]


def _check_model_takes(path: Path, trees: Sequence[TokenTree], model: Path) -> None:
    """Raise for tokens the model has no embedding of, and rows longer than it was trained on."""
    try:
        facts = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # a hub id, or a folder that the loader will complain about
    paths = [tree.path(index) for tree in trees for index in range(tree.n_paths)]
    limit = facts.get("max_position_embeddings") or facts.get("n_positions")
    longest = max(len(whole.ids) for whole in paths)
    if isinstance(limit, int) and longest > limit and not facts.get("rope_scaling"):
        raise DataError(
            f"{path}: the longest row has {longest:,} tokens ({model.name} reads {limit:,}); "
            f"set data.tokenize.max_length={limit}"
        )
    n_tokens, highest = facts.get("vocab_size"), max(max(whole.ids) for whole in paths)
    if isinstance(n_tokens, int) and highest >= n_tokens:
        raise ConfigError(
            f"{model}: the tokenizer gives token {highest:,} and the model knows {n_tokens:,}; "
            "copy the tokenizer that belongs to the model into the folder"
        )
