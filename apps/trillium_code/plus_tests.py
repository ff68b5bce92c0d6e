"""HumanEval+ and MBPP+ in their self-contained format: what is unusable in it, and numpy's part.

The plus tests compare floats with `numpy.allclose`, and the embedded sandbox has no numpy. What the
tests use of it is put into their text, with the same meaning for numbers, lists and tuples.
"""

from collections.abc import Mapping

from trillium_code.syntax import lines_of

SKIPPED: dict[tuple[str, bool], str] = {
    ("mbpp/367", False): "its tests use a class Node that nothing defines",
    ("mbpp/927", False): "its tests use a class Node that nothing defines",
    ("HumanEval/32", True): "its test takes the polynomial's arguments for the answer",
    ("HumanEval/139", True): "its own solution times out on the plus inputs",
    ("mbpp/255", True): "its own solution times out on the plus inputs",
    ("mbpp/599", True): "its own solution times out on the plus inputs",
}
"""Rows that no program can pass, by task id and whether it is the plus form, and why."""

_IMPORT = "import numpy as np"
_STAND_IN = """
class np:
    class ndarray: pass
    float64 = float32 = float
    @staticmethod
    def allclose(a, b, rtol=1e-05, atol=1e-08):
        if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
            if len(a) != len(b):
                raise ValueError("operands of different lengths")
            return all(np.allclose(x, y, rtol, atol) for x, y in zip(a, b))
        if isinstance(a, (list, tuple)):
            return all(np.allclose(x, b, rtol, atol) for x in a)
        if isinstance(b, (list, tuple)):
            return all(np.allclose(a, y, rtol, atol) for y in b)
        return a == b or (abs(b) != float("inf") and abs(a - b) <= atol + rtol * abs(b))
"""


def is_plus_row(row: Mapping[str, object]) -> bool:
    """Say whether a row has the plus form: one test text with a long list of inputs."""
    test = row.get("test")
    return isinstance(test, str) and "inputs = [" in test


def without_numpy(test: str) -> str:
    """Return the test with the little it needs of numpy in place of the import."""
    if _IMPORT not in test:
        return test
    lines = [_STAND_IN.strip() if line == _IMPORT else line for line in lines_of(test)]
    return "\n".join(lines)
