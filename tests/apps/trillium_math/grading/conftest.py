"""One grader for the tests of a file: its algebra process takes a second to start."""

import pytest
from trillium_math.grading import Grader


@pytest.fixture(scope="module")
def grader():
    with Grader() as opened:
        yield opened
