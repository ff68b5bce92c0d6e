"""How right the labels of every selector are on the samples of a finished ablation seed.

    python tests/benchmarks/code_labels.py runs/code-ablation/seed_0 [--source own] [--json FILE]

Seconds, no model: the selectors of the code application choose pairs from the saved matrices, with
and without agreement among samples, and hidden tests that none of them saw judge the pairs.
Success: a row per selector and gate; the share of inverted pairs is what DSTC is about.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import get_args

from trillium_code.label_quality import LabelQuality, judge_labels
from trillium_code.pairs import RankConfig, Scorer, rank
from trillium_code.records import TaskMatrix, TaskResult, TaskSamples, read_records
from trillium_code.task_files import read_tasks

GATES = (
    {"min_agreement": 1, "n_chosen": 1, "n_rejected": 1},
    {"min_agreement": 1, "n_chosen": 2, "n_rejected": 3},
    {"min_agreement": 3, "n_chosen": 2, "n_rejected": 3},
)


def judge(folder: Path, config: RankConfig, entry_points: dict[str, str]) -> LabelQuality:
    """Rank every task of a run with `config` and count its pairs by hidden tests."""
    matrices = read_records(folder / "matrices.jsonl", TaskMatrix)
    samples = read_records(folder / "samples_programs.jsonl", TaskSamples)
    truth = read_records(folder / "results_training.jsonl", TaskResult)
    rankings = []
    for matrix, own in zip(matrices, samples, strict=True):
        ended = [any(own.samples[i].finish == "stop" for i in group) for group in matrix.members]
        rankings.append(rank(matrix, entry_points[matrix.task_id], ended, config))
    return judge_labels(rankings, truth)


def main() -> int:
    """Print a row per selector and gate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--source", default="own")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    entry_points = {task.id: task.entry_point for task in read_tasks(asked.source)}
    rows = []
    print(
        f"{'scorer':>12} {'gate':>8} {'pairs':>6} {'right':>6} {'inverted':>9} {'both wrong':>11}"
    )
    for gate in GATES:
        for scorer in get_args(Scorer):
            found = judge(asked.folder, RankConfig(scorer=scorer, **gate), entry_points)
            shares = [found.share(n) for n in (found.n_right, found.n_inverted, found.n_both_wrong)]
            name = "{min_agreement}/{n_chosen}/{n_rejected}".format(**gate)
            shown = [f"{share:.3f}" if share is not None else "n/a" for share in shares]
            print(f"{scorer:>12} {name:>8} {found.n_pairs:>6} {shown[0]:>6} ", end="")
            print(f"{shown[1]:>9} {shown[2]:>11}")
            rows.append(
                {
                    "scorer": scorer,
                    **gate,
                    "pairs": found.n_pairs,
                    "tasks": found.n_paired,
                    "right": shown[0],
                    "inverted": shown[1],
                    "both_wrong": shown[2],
                }
            )
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
