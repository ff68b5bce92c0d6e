"""`diagnose`: measure a preference file, or what a run made of one, and judge the figures.

A diagnosis is a run folder of its own: killed and started again it goes on where it was.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from trillium.assets import find_model
from trillium.diagnostics.ches import keep_lowest
from trillium.diagnostics.config import DiagnoseConfig
from trillium.diagnostics.findings import Finding, Rows, column
from trillium.diagnostics.judge_drift import judge_3d, judge_samples
from trillium.diagnostics.judge_pairs import judge_data, judge_training
from trillium.diagnostics.overoptimisation import top_k_entropy, top_k_mass
from trillium.diagnostics.page import make_page
from trillium.diagnostics.pair_files import PairFile, read_pairs
from trillium.diagnostics.passes import measure_pairs, measure_samples
from trillium.diagnostics.samples import prompts_of
from trillium.diagnostics.sources import Source, find_source, require_pairs
from trillium.errors import ConfigError
from trillium.files import hash_json, hash_path, read_rows, write_atomically
from trillium.policies.adapters import load_second_adapter
from trillium.policies.config import PolicyConfig
from trillium.policies.load import load_policy
from trillium.policies.tokenizer import load_tokenizer
from trillium.report import render_report
from trillium.runs import Run, Stage
from trillium.scoring.model_files import hash_model
from trillium.trees import TokenTree

_REFERENCE = "reference"
_DEFAULT_BETA = 0.1


@dataclass(frozen=True)
class Diagnosis:
    """Hold what was found, the measured rows in the order of `pairs`, and the report."""

    findings: tuple[Finding, ...]
    rows: tuple[dict[str, float], ...]
    pairs: PairFile
    source: Path
    report: Path

    def write_filtered(self, share: float, path: Path) -> int:
        """Write the pairs with the lowest CHES per token to `path`; return how many.

        Raises ConfigError when `path` is the file they come from, which would lose the others.
        """
        if path.resolve() == self.source.resolve():
            raise ConfigError(f"{path}: is the file that is filtered; name another one")
        kept = keep_lowest(column(self.rows, "ches_per_token"), share)
        self.pairs.write(path, kept)
        return len(kept)


def diagnose(config: DiagnoseConfig, output: Path) -> Diagnosis:
    """Measure, judge and report into `output`; the same call again does only what is missing.

    Raises DataError or ConfigError for a target, rows or adapters that cannot be used.
    """
    source = _resolve(config)
    path = require_pairs(source)
    tokenizer = load_tokenizer(find_model(source.base))
    pairs = read_pairs(path, tokenizer, config.tokenize_as(source.tokenize))
    trees = pairs.trees[: config.n_pairs]
    known = config.beta or source.beta
    with Run.open(output, config, seed=config.seed) as run:
        meter = _Meter(config, source, tokenizer, run)
        rows = meter.measure("pairs", path, pairs)
        findings = judge_data(rows, beta=known or _DEFAULT_BETA, agreement=config.agreement)
        if source.adapter is not None:
            findings += meter.judge_run(rows, trees, beta=known or _DEFAULT_BETA)
        page = make_page(
            source.name,
            findings,
            rows,
            trees,
            tokenizer,
            metrics=source.metrics,
            notes=f"{pairs.left_out}; beta {known}" if known else f"{pairs.left_out}; beta assumed",
        )
        write_atomically(output / "report.html", render_report(page))
        found = [_known(asdict(finding)) for finding in findings]
        text = json.dumps(found, indent=2, allow_nan=False) + "\n"
        write_atomically(output / "findings.json", text)
    return Diagnosis(tuple(findings), tuple(rows), pairs, path, output / "report.html")


def _known(finding: dict[str, object]) -> dict[str, object]:
    """Return the finding with null for a figure that could not be had: JSON has no NaN."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in finding.items()
    }


def _resolve(config: DiagnoseConfig) -> Source:
    """Return the source with what the configuration overrides."""
    found = find_source(config.target)
    source = Source(
        **{
            **vars(found),
            "pairs": config.pairs or found.pairs,
            "base": config.base or found.base,
            "adapter": config.adapter or found.adapter,
        }
    )
    for path in (source.adapter, source.reference):
        if path is not None and not (path / "adapter_config.json").is_file():
            raise ConfigError(
                f"{path}: holds no adapter (needs adapter_config.json); give --adapter"
            )
    return source


class _Meter:
    """Run the measuring stages of one diagnosis; the model is loaded when a stage needs it."""

    def __init__(
        self, config: DiagnoseConfig, source: Source, tokenizer: PreTrainedTokenizerBase, run: Run
    ) -> None:
        self._config, self._source, self._run = config, source, run
        self._tokenizer = tokenizer
        self._base = hash_model(find_model(source.base))
        is_apart = source.adapter is not None and source.reference is not None
        self._reference = _REFERENCE if is_apart else None

    @cached_property
    def _policy(self) -> PeftModel:
        """Load policy and reference; a file alone has only the base."""
        source = self._source
        policy = load_policy(PolicyConfig(base=source.base, adapter=source.adapter)).model
        if self._reference and source.reference:
            load_second_adapter(policy, source.reference, self._reference)
        return policy

    def judge_run(
        self, rows: Sequence[dict[str, float]], trees: Sequence[TokenTree], *, beta: float
    ) -> list[Finding]:
        """Return the findings about what training made of the pairs, of others, and of samples."""
        config, source = self._config, self._source
        unseen: Rows = ()
        if source.held_out is not None:
            tokenize = config.tokenize_as(source.tokenize)
            others = read_pairs(source.held_out, self._tokenizer, tokenize)
            unseen = self.measure("held_out", source.held_out, others)
        findings = judge_training(rows, beta=beta, agreement=config.agreement)
        findings += judge_3d(rows, unseen)
        if config.n_samples:
            n_vocab = len(self._tokenizer)
            findings += judge_samples(self.sample(trees), rows, beta=beta, n_vocab=n_vocab)
        return findings

    def measure(self, name: str, path: Path, pairs: PairFile) -> list[dict[str, float]]:
        """Return the measured rows of a file of pairs."""
        trees = pairs.trees[: self._config.n_pairs]
        inputs = {"rows": hash_path(path), "tokens": pairs.digest, "n": str(len(trees))}
        stage = self._stage(name, inputs)
        output = f"{name}.jsonl"
        if stage.is_due:
            with stage.rows(output, key="key") as rows:
                measure_pairs(
                    self._policy,
                    self._reference,
                    trees,
                    rows,
                    pad_id=self._tokenizer.pad_token_id or 0,
                    has_policy=self._source.adapter is not None,
                )
            stage.finish([output], {"pairs": len(trees)})
        return list(_read(stage.path(output)))

    def sample(self, trees: Sequence[TokenTree]) -> list[dict[str, object]]:
        """Return the policy's own samples for the prompts of `trees`."""
        config = self._config
        prompts = prompts_of(trees, config.n_samples)
        asked = {"prompts": hash_json([list(one) for one in prompts]), "seed": str(config.seed)}
        stage = self._stage("samples", {**asked, "max_new_tokens": str(config.max_new_tokens)})
        if stage.is_due:
            with stage.rows("samples.jsonl", key="key") as rows:
                measure_samples(
                    self._policy,
                    self._reference,
                    prompts,
                    rows,
                    max_new_tokens=config.max_new_tokens,
                    seed=config.seed,
                    summarise=_summarise,
                )
            stage.finish(["samples.jsonl"], {"prompts": len(prompts)})
        return list(read_rows(stage.path("samples.jsonl")))

    def _stage(self, name: str, inputs: dict[str, str]) -> Stage:
        source = self._source
        adapters = {
            "adapter": source.adapter,
            "reference": source.reference if self._reference else None,
        }
        hashes = {key: hash_path(path) if path else "none" for key, path in adapters.items()}
        return self._run.stage(name, {"base": self._base, **hashes, **inputs})


def _summarise(top_logps: Tensor) -> dict[str, float]:
    return {"entropy": top_k_entropy(top_logps), "mass": top_k_mass(top_logps)}


def _read(path: Path) -> list[dict[str, float]]:
    """Return measured rows without their names."""
    return [
        {key: float(value) for key, value in row.items() if isinstance(value, int | float)}
        for row in read_rows(path)
    ]
