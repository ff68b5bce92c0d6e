"""What arms found, by hand; seeds may run elsewhere and have arms that others lack so far."""

from trillium_math.agent.trajectory import Trajectory
from trillium_math.arms import ArmResult, SeedResult
from trillium_math.arms_table import tabulate


def rolled(*rewards):
    """Return a trajectory for each of as many problems."""
    return tuple(
        Trajectory(f"{n}#0", str(n), "1", (), (5, 6), ((1, 2),), "answered", "1", reward)
        for n, reward in enumerate(rewards)
    )


def seed(**arms):
    """Return a seed that got neither of two problems right before, and of each arm what it got."""
    found = {name: ArmResult(rolled(*after), 1, 10, 20, 1.0) for name, after in arms.items()}
    return SeedResult(rolled(0.0, 0.0), found, 1.0)


def test_every_arm_that_some_seed_has_has_a_row():
    results = {
        0: seed(dpo=(1.0, 1.0), kto=(1.0, 0.0)),
        1: seed(dpo=(0.0, 1.0), oreo=(0.0, 0.0)),
        2: seed(kto=(1.0, 1.0), oreo=(1.0, 0.0)),
    }
    rows = tabulate(results)
    assert [row.name for row in rows] == ["dpo", "kto", "oreo"]
    assert [row.seed_gains for row in rows] == [(1.0, 0.5), (0.5, 1.0), (0.0, 0.5)]
    assert [row.sampled for row in rows] == [(10, 10)] * 3


def test_rows_stand_in_the_order_of_the_run_file():
    late = {0: seed(kto=(0.0, 0.0), oreo=(0.0, 0.0)), 1: seed(dpo=(0.0, 0.0), kto=(0.0, 0.0))}
    assert [row.name for row in tabulate(late)] == ["dpo", "kto", "oreo"]
