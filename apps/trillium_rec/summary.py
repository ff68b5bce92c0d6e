"""What a run found, in a few lines: the table that a terminal shows, and gains over baselines."""

from collections.abc import Sequence

from rich.table import Table
from trillium.evaluation import Comparison

from trillium_rec.alignment.run_alignment import RunAlignment
from trillium_rec.evaluation import Evaluation, compare_users
from trillium_rec.id_quality import IdQuality

METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10", "recall@50")


def render_evaluations(evaluations: Sequence[Evaluation]) -> Table:
    """Return one row per recommender."""
    table = Table(title=f"test items of {len(evaluations[0].ranks):,} users")
    # On a narrow terminal a name may take two lines; a number never loses digits.
    table.add_column("recommender")
    short = [name.replace("recall", "R").replace("ndcg", "N") for name in METRICS]
    for name in (*short, "cover", "valid"):
        table.add_column(name, justify="right", no_wrap=True, min_width=5 + (name[0] in "RN"))
    for each in evaluations:
        numbers = [f"{each.metrics[name].mean:.4f}" for name in METRICS]
        table.add_row(each.name, *numbers, f"{each.coverage:.3f}", f"{each.validity:.3f}")
    return table


def describe_alignment(found: RunAlignment) -> list[str]:
    """Return what alignment did in a few lines: rewards, and what the rule says."""
    if found.refusal is not None or found.verdict is None:
        return [f"not aligned: {found.refusal}"]
    gains = [
        f"{name} {gain.gain.mean:+.4f} [{gain.gain.low:+.4f}, {gain.gain.high:+.4f}]"
        for name, gain in found.verdict.gains.items()
        if name in ("oracle", "judge", "reward")
    ]
    lines = [f"alignment, reward of the likeliest session: {', '.join(gains)}"]
    if found.n_left_out:
        lines.append(f"left out, having taken every item: {found.n_left_out:,} users")
    if found.verdict.passes:
        return [*lines, "the rule holds"]
    failures = "; ".join(f"{check.name}: {check.figure}" for check in found.verdict.failures)
    return [*lines, f"the rule fails: {failures}"]


def gains_over_baselines(
    evaluations: Sequence[Evaluation], *, metric: str = "ndcg", k: int = 10
) -> dict[str, Comparison]:
    """Compare the last recommender with every other one, user by user."""
    best = evaluations[-1]
    return {other.name: compare_users(other, best, metric, k) for other in evaluations[:-1]}


def describe_quality(quality: IdQuality) -> list[str]:
    """Return a line per level, and what there is to say of whole ids."""
    lines = [
        f"level {number}: {level.usage:.0%} of {level.n_codes} codes in use, entropy "
        f"{level.entropy:.3f} nats, Gini {level.gini:.3f}, {level.smallest} to {level.largest} "
        "items per code"
        for number, level in enumerate(quality.levels, 1)
    ]
    alignment = ", ".join(f"{v:.1f} at {k}" for k, v in quality.alignment.items())
    return [
        *lines,
        f"items {quality.n_items}, collisions {quality.n_collisions}, largest prefix group "
        f"{quality.largest_prefix_group}; neighbours share a prefix more often than chance: "
        f"{alignment}",
    ]
