"""What search trees tell about the policy that grew them: its judgement, and its steps.

Pure functions of finished trees.
"""

from collections.abc import Sequence

from trillium_math.calibration import Calibration, calibrate
from trillium_math.search.record import SearchTree
from trillium_math.step_accuracy import StepAccuracy, judge_steps, measure_steps


def calibrate_judgement(found: Sequence[SearchTree], *, n_bins: int = 10) -> Calibration | None:
    """Compare the policy's confidence in finished solutions with how they were graded.

    None when there was no end, or the policy was not asked.
    """
    ends = [tree.nodes[index] for tree in found if tree.self_evaluation > 0 for index in tree.ends]
    if not ends:
        return None
    rewards = [float(end.reward == 1) for end in ends]
    return calibrate([end.confidence for end in ends], rewards, n_bins=n_bins)


def measure_tree_steps(found: Sequence[SearchTree]) -> StepAccuracy | None:
    """Measure the steps to every end; the success rate of a step is that of all ends below it.

    The first step below which no end is right is the error, as with rollouts, but without sampling
    again. None when there was no end.
    """
    verdicts = {
        f"{tree.problem_id}/{index}": judge_steps(_rates(tree, index))
        for tree in found
        for index in tree.ends
    }
    return measure_steps(verdicts) if verdicts else None


def _rates(tree: SearchTree, end: int) -> list[float]:
    rates = []
    for step in tree.lineage(end)[1:]:
        below = [tree.nodes[i].reward == 1 for i in tree.ends if step in tree.lineage(i)]
        rates.append(sum(below) / len(below))
    return rates
