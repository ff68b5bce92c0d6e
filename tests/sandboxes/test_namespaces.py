"""What programs find in the root that is built for them."""

import pytest
from trillium_sandbox import Request

POOLS = {
    "a pool of threads": (
        "from multiprocessing.pool import ThreadPool\n"
        "with ThreadPool(3) as pool: print(pool.map(abs, [-1, 2]))"
    ),
    "its other name": "from multiprocessing.dummy import Pool\nprint(Pool(2).map(abs, [-1, 2]))",
    "a lock": "import multiprocessing\nwith multiprocessing.Lock(): print([1, 2])",
    "a queue": "import multiprocessing as m\nq = m.Queue()\nq.put([1, 2])\nprint(q.get())",
}


@pytest.mark.parametrize("source", POOLS.values(), ids=POOLS)
def test_threads_find_the_semaphores_that_multiprocessing_gives_them(backend, source):
    look = b"import os\nprint(os.listdir('.'))"
    requests = [Request("a", "script", source.encode()), Request("b", "script", look)]
    first, after = backend.run(requests)
    assert (first.status, first.stdout, first.stderr) == ("ok", b"[1, 2]\n", b"")
    assert after.stdout == b"[]\n"


def test_a_candidate_may_use_a_pool_of_threads(judge):
    source = (
        "from multiprocessing.pool import ThreadPool\n"
        "def f(numbers):\n    with ThreadPool(2) as pool: return pool.map(abs, numbers)"
    )
    reply = judge(source, "assert f([-1, 2]) == [1, 2]", entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split")
