"""A test whose judge outlives its own verdict, and the requests that come after it."""

import pytest
from trillium_sandbox import Limits, Request, open_backend
from trillium_sandbox.embedded import EmbeddedBackend

pytestmark = pytest.mark.security

# It says that it is done, as the sandbox's own code would, and goes on.
_DONE = """
import os, struct, time
assert f(1) == 1
os.write(4, struct.pack("<cd", b"P", time.monotonic()))
os.write(3, b"d")
end = time.monotonic() + 20
"""
ANNOUNCES = f"""{_DONE}
begin = struct.pack("<cddQQQII?", b"T", 5.0, 5.0, 0, 32 << 20, 65536, 0, 0, False)
while time.monotonic() < end:
    for descriptor in range(64):
        try: os.write(descriptor, begin)
        except OSError: pass
    time.sleep(0.01)
"""
SWAPS_FILES = f"""{_DONE}
while time.monotonic() < end:
    for name in os.listdir():
        try:
            os.unlink(name)
            open(name, "w").write("forged")
        except OSError: pass
"""
LEAVES_FILES = f"""{_DONE}
while time.monotonic() < end:
    open("left", "w").write("x")
    time.sleep(0.001)
"""
KEEPS_A_FILE = """
import os
kept = open("kept", "w+")
os.unlink("kept")
assert f(1) == 1
"""
HOSTILE = [ANNOUNCES, SWAPS_FILES, LEAVES_FILES, KEEPS_A_FILE]
HOSTILE_NAMES = ["announces requests", "swaps files", "leaves files", "keeps a file open"]

LOOKS = b"import os, time\nprint(os.listdir())\nopen('x', 'w').write('own')\ntime.sleep(0.1)\n"
SHARES = "import os\nassert os.listdir() == []\nf('own')\nassert open('x').read() == 'own'"
WRITES = b"def f(text):\n    with open('x', 'w') as file: file.write(text)"
TAKES_MEMORY = ("assert f() > 0", "assert sum([0] * f()) == 0", "assert f() > 1")


@pytest.fixture(scope="module", params=["embedded", "docker"])
def zygote(request):
    """One zygote, so that all requests come after one another."""
    if request.param == "docker":
        request.getfixturevalue("docker_image")
    with open_backend(request.param, n_workers=1) as backend:
        yield backend


@pytest.fixture(params=HOSTILE, ids=HOSTILE_NAMES)
def after(request, zygote):
    """Return a function that answers requests behind a hostile test, in the same zygote."""

    def run(*requests):
        first = Request("first", "function", b"def f(x): return x", (request.param,), "f")
        (hostile,) = zygote.run([first])
        assert hostile.status == "pass"
        return list(zygote.run(requests))

    yield run
    if isinstance(zygote, EmbeddedBackend):
        assert (zygote.n_lost, zygote.n_restarts) == (0, 0)


def test_each_program_has_its_own_verdict(after):
    numbers = range(8)
    requests = [
        Request(f"n{n}", "stdio", f"print({n - n % 2})".encode(), expected_stdout=b"%d\n" % n)
        for n in numbers
    ]
    found = [(reply.status, reply.stdout) for reply in after(*requests)]
    assert found == [(("pass", "fail")[n % 2], b"%d\n" % (n - n % 2)) for n in numbers]


def test_a_program_finds_an_empty_folder_and_keeps_what_it_writes(after):
    program = Request("a", "script", LOOKS + b"print(open('x').read())")
    assert [reply.stdout for reply in after(program)] == [b"[]\nown\n"]


def test_other_tests_find_an_empty_folder_and_share_it_with_their_candidate(after):
    requests = [Request(f"n{n}", "function", WRITES, (SHARES,), "f") for n in range(2)]
    assert [reply.status for reply in after(*requests)] == ["pass"] * 2


def test_other_sizes_find_an_empty_folder(after):
    limits = Limits(disk_bytes=8 << 20)
    program = Request("a", "script", LOOKS + b"print(open('x').read())", limits=limits)
    assert [reply.stdout for reply in after(program)] == [b"[]\nown\n"]


def test_a_judge_that_idles_is_gone_with_all_that_it_left(after):
    slow = Request("slow", "script", b"import time; time.sleep(1.2)")
    program = Request("a", "script", LOOKS)
    assert [reply.stdout for reply in after(slow, program)] == [b"", b"[]\n"]


def test_no_process_of_another_request_is_beside_a_program(after, zygote):
    counting = (
        b"import os\ndef is_there(pid):\n    try: os.getpgid(pid)\n"
        b"    except OSError: return False\n    return True\n"
        b"print([pid for pid in range(1, 9999) if is_there(pid)], os.getpid())"
    )
    (reply,) = after(Request("a", "script", counting))
    pids, _, own = reply.stdout.decode().rpartition(" ")
    # The zygote, which is process 1 at level 2, and in a container the supervisor before it.
    assert len(pids.split(",")) == zygote.level
    assert pids.startswith("[1, ")
    assert pids.endswith(f" {own.strip()}]")


def test_a_judge_of_the_same_tests_stays(zygote):
    who = "import os\nprint(os.getppid(), file=__import__('sys').stderr)\nassert f() == 1"
    requests = [Request(f"n{n}", "function", b"def f(): return 1", (who,), "f") for n in range(4)]
    replies = list(zygote.run(requests))
    assert [reply.status for reply in replies] == ["pass"] * 4
    assert len({reply.stderr for reply in replies[1:]}) == 1  # the first came alone


SETS_FOR_ALL = {
    "a number of the library": ("import math\nassert f(math.pi) > 3.1", "math.pi = 3.0"),
    "the recursion limit": (
        "def down(n): return n and down(n - 1)\nassert f(down(600)) == 0",
        "import sys\nsys.setrecursionlimit(120)",
    ),
    "a builtin": ("assert f(sum([1, 2])) == 3", "import builtins\nbuiltins.sum = None"),
    "warnings": (
        "import warnings\nwarnings.warn('odd')\nassert f(1) == 1",
        "import warnings\nwarnings.simplefilter('error')",
    ),
    "a method of the library's": (
        "import json\nassert json.loads(f('1')) == 1",
        "import json\njson.loads = None",
    ),
}


@pytest.mark.parametrize(("looks", "sets"), SETS_FOR_ALL.values(), ids=SETS_FOR_ALL)
def test_what_a_test_sets_for_its_interpreter_ends_with_its_candidate(zygote, looks, sets):
    sets = f"import math\n{sets}\nassert f(1) == 1"
    requests = [
        Request(f"n{n}", "function", f"def f(x): return x  # {n % 2}".encode(), (looks, sets), "f")
        for n in range(5)
    ]
    assert [reply.tests for reply in zygote.run(requests)] == [("pass", "pass")] * 5


def test_what_fills_the_memory_of_a_judge_is_the_loss_of_its_own_candidate(zygote):
    """Tests that leave nothing behind are run in one process for all: it must end with them."""
    sizes = [10, 10, 10**8, 10, 10**8, 10]
    requests = [
        Request(f"{number}", "function", f"def f(): return {size}".encode(), TAKES_MEMORY, "f")
        for number, size in enumerate(sizes)
    ]
    replies = {reply.id: reply for reply in zygote.run(requests)}
    for number, size in enumerate(sizes):
        reply = replies[str(number)]
        verdict = ("memory", "memory_bytes") if size > 10 else ("pass", None)
        assert (reply.status, reply.limit_hit, reply.integrity) == (*verdict, "split")


STATEFUL = b"""
seen = []
def f(x):
    seen.append(x)
    if x == 2:
        raise MemoryError
    return len(seen)
"""


@pytest.mark.parametrize(
    ("others", "source", "tests"),
    [
        (
            b"import re\ndef f(x): return re.compile('a')",
            b"import re\ndef f(x): return re.compile('a') if x else 0",
            ("assert f(1)",),
        ),
        (
            b"import pathlib\ndef f(x): return pathlib.PurePosixPath('/')",
            b"from urllib.parse import urlparse\ndef f(x): return urlparse('http://a/b')",
            ("assert isinstance(f(1), tuple)",),
        ),
        (
            b"def f(x): return x",
            STATEFUL,
            ("assert f(1) == 1", "assert f(2) == 2", "assert f(3) == 3"),
        ),
        (b"def f(x): raise ValueError(x)", b"def f(x): return 1 / 0", ("assert f(1) == 1",)),
    ],
    ids=["a pattern", "a module", "a state", "an exception"],
)
def test_identical_requests_have_identical_verdicts_whatever_came_before(
    zygote, others, source, tests
):
    """Assertions alone are judged in one process for all, as long as nothing could stay in it."""
    plain = b"def f(x): return x"
    sources = [source, plain, plain, source, others, source, others, others, source, plain, source]
    requests = [Request(f"{n}", "function", one, tests, "f") for n, one in enumerate(sources)]
    replies = {reply.id: reply for reply in zygote.run(requests)}
    found = [replies[f"{n}"] for n, one in enumerate(sources) if one == source]
    assert len({(one.tests, one.status, one.integrity, one.stdout) for one in found}) == 1
