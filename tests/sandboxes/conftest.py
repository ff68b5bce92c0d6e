"""One running backend for the tests of this folder."""

from collections.abc import Callable, Iterator

import pytest
from trillium_sandbox import Backend, Reply, Request, open_backend


@pytest.fixture(scope="session")
def backend() -> Iterator[Backend]:
    with open_backend("embedded", n_workers=2) as opened:
        yield opened


@pytest.fixture
def judge(backend: Backend) -> Callable[..., Reply]:
    """Return a function that runs tests against a candidate."""

    def run(source: str, *tests: str, entry_point: str | None = None) -> Reply:
        request = Request("one", "function", source.encode(), tests, entry_point)
        (reply,) = backend.run([request])
        return reply

    return run
