"""The section of a run's report that says what alignment did, and whether the rule holds."""

from trillium.report.content import Block, Curves, Section, Series, Table

from trillium_rec.alignment.measures import Measured
from trillium_rec.alignment.rule import TERMS
from trillium_rec.alignment.run_alignment import RunAlignment
from trillium_rec.reward.quality import RewardQuality

_SHOWN_HISTORY = 5
_REWARDS = (
    ("oracle", "oracle reward (1 is an average list of the log)"),
    ("judge", "judge, nats"),
    ("reward", "reward model, nats; what was optimised, no evidence"),
)
_OTHERS = (("recall@10", "recall@10"), ("recall@50", "recall@50"), ("logged_logp", "logged items"))


def alignment_section(found: RunAlignment, titles: tuple[str, ...], n_shown: int) -> Section:
    """Return the section; a refusal is said in its first sentence."""
    quality = _quality(found)
    if found.refusal is not None or found.before is None or found.after is None:
        return Section("Preference alignment", (quality,), intro=f"None: {found.refusal}")
    blocks: list[Block] = [_changes(found.before, found.after, found), _conditions(found), quality]
    blocks.append(_sessions(found, titles, n_shown))
    blocks += _rounds(found)
    return Section("Preference alignment", tuple(blocks), intro=_sentence(found))


def _sentence(found: RunAlignment) -> str:
    verdict = found.verdict
    assert verdict is not None
    assert found.before is not None
    users = f"{len(found.before.users)} users"
    if found.n_left_out:
        users += f" ({found.n_left_out} more have taken every item and are left out)"
    if verdict.passes:
        return (
            f"On {users} the rule holds: better sessions, and the means of recall and "
            "coverage within their limits."
        )
    failures = "; ".join(f"{check.name}: {check.figure}" for check in verdict.failures)
    return (
        f"On {users} the rule fails ({failures}). The model before alignment is what the "
        "other sections show."
    )


def _changes(before: Measured, after: Measured, found: RunAlignment) -> Table:
    rows = [
        (label, before.mean(key), after.mean(key), found.verdict.gains[key].gain)
        for key, label in (*_REWARDS, *_OTHERS)
        if found.verdict is not None and key in found.verdict.gains
    ]
    totals = [
        (name.replace("_", " "), before.totals[name], after.totals[name], None)
        for name in before.totals
    ]
    return Table(
        "The likeliest session of each user, before and after",
        ("", "before", "after", "gain, paired over users"),
        (*rows, *totals),
        note="Recall is of the lists of codes. Logged items: log-probability of what came next.",
    )


def _conditions(found: RunAlignment) -> Table:
    assert found.verdict is not None
    return Table(
        "The rule, fixed beforehand",
        ("condition", "", "figure"),
        tuple((c.name, "holds" if c.holds else "fails", c.figure) for c in found.verdict.checks),
        note=TERMS,
    )


def _quality(found: RunAlignment) -> Table:
    return Table(
        "Reward model and judge, on lists of users they did not learn from",
        ("", "head", "rate", "AUC", "popularity and position", "ECE", "uncalibrated"),
        (*_quality_rows("reward model", found.reward), *_quality_rows("judge", found.judge)),
    )


def _quality_rows(
    name: str, quality: RewardQuality
) -> list[tuple[str, str, float, float | None, float | None, float, float]]:
    return [(name, h.name, h.rate, h.auc, h.baseline_auc, h.ece, h.raw_ece) for h in quality.heads]


def _sessions(found: RunAlignment, titles: tuple[str, ...], n_shown: int) -> Table:
    assert found.sessions is not None
    assert found.panel_histories is not None
    assert found.before is not None
    rows = []
    for row in range(min(n_shown, len(found.before.users))):
        history = found.panel_histories.of(row)[-_SHOWN_HISTORY:]
        lists = [history, found.sessions[0][row], found.sessions[1][row]]
        named = ["; ".join(titles[i] for i in items.tolist() if i >= 0) for items in lists]
        rows.append((found.before.users[row], *named))
    return Table("Sessions", ("user", "last items", "session before", "session after"), tuple(rows))


def _rounds(found: RunAlignment) -> list[Curves]:
    """Show how far winners and losers moved in each round."""
    series = []
    for key, name in (("gain_winner", "winners"), ("gain_losers", "losers")):
        points = [(n + 1.0, r[key]) for n, r in enumerate(found.rounds) if key in r]
        if points:
            series.append(Series(name, tuple(p[0] for p in points), tuple(p[1] for p in points)))
    if not series:
        return []
    title = "Log-probability of compared sessions, against the round's snapshot"
    return [Curves(title, "round", "nats per session", tuple(series))]
