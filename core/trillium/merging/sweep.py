"""The evaluation of a merge over its mixing weight: what is lost on one set is gained on another.

Each point is a merged adapter or model, measured on files of pairs that none of them trained on. A
point is a row on disk, so that a killed sweep goes on with the points that are missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from trillium.assets import find_model
from trillium.diagnostics.pair_files import PairFile, read_pairs
from trillium.errors import ConfigError, DataError
from trillium.files import RowsFile, hash_path, read_rows, remove, write_atomically
from trillium.merging.adapters import load_adapters, merge_adapters, read_settings
from trillium.merging.config import MergeConfig
from trillium.merging.models import ModelFolder, merge_models, open_models
from trillium.merging.page import make_page
from trillium.policies.adapters import load_second_adapter, using_adapter
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.tokenizer import load_tokenizer
from trillium.progress import Progress
from trillium.report import render_report
from trillium.runs import Run, Stage
from trillium.scoring.layout import evaluating
from trillium.scoring.model_files import hash_model
from trillium.scoring.scores import score
from trillium.tokenize_config import TokenizeConfig
from trillium.training.steps import StepCollator
from trillium.trees import TokenTree

_MICRO_TOKENS = 2048
_MERGED = "merged"


def sweep(
    config: MergeConfig,
    files: Sequence[Path],
    n_points: int,
    output: Path,
    *,
    base: ModelFolder | None,
    is_adapter: bool,
) -> list[dict[str, object]]:
    """Measure the merges at `n_points` weights from 0 to 1 of the second input, ends included.

    Returns one row per point; adapters of the points stay in `output/weight-T`. Raises ConfigError
    for anything but two inputs and two or more points.
    """
    if len(config.inputs) != 2 or n_points < 2:
        raise ConfigError(
            f"merge: a sweep takes two inputs and two or more points, not {len(config.inputs)} and "
            f"{n_points}; correct the inputs or --points"
        )
    for path in files:
        if not path.is_file():
            raise DataError(f"{path}: there is no such file (needs pairs); check the path")
    weights = [place / (n_points - 1) for place in range(n_points)]
    source = find_model(_base_name(config)) if is_adapter else str(config.inputs[0])
    sets = _read_sets(files, load_tokenizer(source))
    inputs = _hash_inputs(config, sets, str(base.folder) if base is not None else source)
    settings = config.model_dump_json(exclude={"inputs", "weights"})
    with Run.open(output, config, seed=config.seed) as run:
        asked = {"points": str(n_points), "settings": settings, "rows": "measures in sets"}
        stage = run.stage("sweep", {**inputs, **asked})
        if stage.is_due:
            with stage.rows("sweep.jsonl", key="weight") as rows:
                missing = [t for t in weights if str(t) not in rows.finished]
                if missing:
                    points = _Points(config, sets, output, stage, base, is_adapter=is_adapter)
                    points.measure(missing, rows)
            stage.finish(["sweep.jsonl"], {"points": n_points})
        found = list(read_rows(stage.path("sweep.jsonl")))
    write_atomically(output / "report.html", render_report(make_page(config, found)))
    return found


class _Points:
    """Measure points; for adapters the base model is loaded once."""

    def __init__(
        self,
        config: MergeConfig,
        sets: Mapping[str, PairFile],
        output: Path,
        stage: Stage,
        base: ModelFolder | None,
        *,
        is_adapter: bool,
    ) -> None:
        self._config, self._output = config, output
        self._sets = {name: pairs.trees for name, pairs in sets.items()}
        self._stage, self._base, self._is_adapter = stage, base, is_adapter

    def measure(self, weights: Sequence[float], rows: RowsFile) -> None:
        """Append a row for each weight."""
        with Progress("sweep", n_total=len(weights), unit="points") as progress:
            if self._is_adapter:
                self._measure_adapters(weights, rows, progress)
            else:
                self._measure_models(weights, rows, progress)

    def _measure_adapters(
        self, weights: Sequence[float], rows: RowsFile, progress: Progress
    ) -> None:
        adapters = load_adapters(self._config.inputs)
        policy = load_policy(
            PolicyConfig(base=_base_name(self._config), adapter=self._config.inputs[0])
        )
        for t in weights:
            merged = merge_adapters(self._config.at(t), adapters)
            folder = self._output / f"weight-{t:.3g}"
            merged.save(folder)
            load_second_adapter(policy.model, folder, _MERGED)
            with using_adapter(policy.model, _MERGED):
                measures = measure_sets(policy.model, self._sets)
            rows.append({"weight": t, "kept": merged.kept, "sets": measures})
            progress.advance()

    def _measure_models(self, weights: Sequence[float], rows: RowsFile, progress: Progress) -> None:
        models = open_models(self._config.inputs)
        for t in weights:
            folder = self._stage.work / "point"
            remove(folder)
            merge_models(self._config.at(t), models, self._base, folder)
            policy = load_policy(PolicyConfig(base=str(folder)))
            with using_adapter(policy.model, None):
                measures = measure_sets(policy.model, self._sets)
            rows.append({"weight": t, "kept": 1.0, "sets": measures})
            remove(folder)
            progress.advance()


def _base_name(config: MergeConfig) -> str:
    """Return the base that adapters are measured on: the one that is given, else their own."""
    name = config.base or read_settings(config.inputs[0]).get("base_model_name_or_path")
    if not name:
        raise ConfigError(f"{config.inputs[0]}: does not name its base; give it with --base")
    return str(name)


def _hash_inputs(config: MergeConfig, sets: Mapping[str, PairFile], base: str) -> dict[str, str]:
    """Name what is merged, tokenizers of models included, the base, and the tokens measured on."""
    inputs = {f"input {place}": hash_path(path) for place, path in enumerate(config.inputs)}
    inputs |= {f"pairs {name}": pairs.digest for name, pairs in sets.items()}
    return {**inputs, "base": hash_model(base)}


def _read_sets(files: Sequence[Path], tokenizer: PreTrainedTokenizerBase) -> dict[str, PairFile]:
    names = [path.stem for path in files]
    if len(set(names)) < len(names):
        raise ConfigError(
            f"merge: files of one name, {', '.join(names)} (the name is the column of the "
            "table); rename one"
        )
    return {path.stem: read_pairs(path, tokenizer, TokenizeConfig()) for path in files}


@torch.no_grad()
def measure_sets(
    model: nn.Module, sets: dict[str, tuple[TokenTree, ...]]
) -> dict[str, dict[str, float]]:
    """Return, for each set of pairs, what the model as it stands makes of it.

    `accuracy` is the share of pairs with the higher log-probability for chosen, `accuracy_mean` the
    same for means per token, `chosen` the mean log-probability of a chosen token in nats.
    """
    collator = StepCollator("padded", 0, _MICRO_TOKENS)
    device = next(model.parameters()).device
    found: dict[str, dict[str, float]] = {}
    for name, trees in sets.items():
        sums, counts = [], []
        with evaluating(model):
            for batch in collator.batch_rows(trees):
                scores = score(model, batch.to(device))
                sums.append(scores.logps.double().cpu())
                counts.append(scores.lengths.cpu())
        logps, lengths = torch.cat(sums), torch.cat(counts)
        means = logps / lengths
        found[name] = {
            "pairs": float(len(trees)),
            "accuracy": float((logps[0::2] > logps[1::2]).double().mean()),
            "accuracy_mean": float((means[0::2] > means[1::2]).double().mean()),
            "chosen": float(logps[0::2].sum() / lengths[0::2].sum()),
            "margin": float((logps[0::2] - logps[1::2]).mean()),
        }
    return found
