"""What a result is worth: pass@k, intervals over tasks, and tests of two systems on equal tasks.

Pure functions of numbers; which answers are right is decided elsewhere. Every random draw comes
from a seed in the arguments.
"""

from trillium.evaluation.comparison import Comparison, compare
from trillium.evaluation.intervals import Interval, bootstrap_mean, format_interval
from trillium.evaluation.pass_at_k import pass_at_k, pass_at_k_by_task

__all__ = [
    "Comparison",
    "Interval",
    "bootstrap_mean",
    "compare",
    "format_interval",
    "pass_at_k",
    "pass_at_k_by_task",
]
