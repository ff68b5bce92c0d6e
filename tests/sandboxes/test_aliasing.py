"""One object in plain execution, copies of it here: what tells them apart is no `split` verdict.

Each program is also executed plainly, so that a case cannot be wrong about what is right.
"""

import pytest
from trillium_sandbox import Request

ODD = {
    "an answer that is shared": (
        "D = {'a': 1}\ndef f(): return D",
        "a, b = f(), f()\nassert a is not b",
    ),
    "an answer that is remembered": (
        "C = {}\ndef f(n): return C.setdefault(n, [n])",
        "assert f(1) is f(1)",
    ),
    "a mutable default": ("def f(a=[]): return a", "assert f() is not f()"),
    "one list, yielded twice": (
        "def f():\n    x = []\n    yield x\n    yield x",
        "a, b = f()\nassert a is not b",
    ),
    "a list of the test's, handed back": (
        "def f(g): return g()",
        "d = []\nr = f(lambda: d)\nr.append(1)\nassert d == []",
    ),
    "items of an iterator, sorted": (
        "def f(it):\n    for x in it: x.sort()",
        "a = [2, 1]\nf(iter([a]))\nassert a == [2, 1]",
    ),
    "values of a view, changed": (
        "def f(it):\n    for v in it: v.append(1)",
        "d = {'a': []}\nf(d.values())\nassert d == {'a': [1]}",
    ),
    "a path that was not copied": (
        "def f(g):\n    x = []\n    for i in range(3):\n        x.append(i)\n        g(x)",
        "seen = []\nf(seen.append)\nassert seen == [[0], [0, 1], [0, 1, 2]]",
    ),
    "a row of a kept matrix": (
        "R = [[], []]\ndef f(i=None):\n    if i is None: return R\n    R[i].append(1)",
        "r = f()\nf(0)\nassert r[0] == []",
    ),
    "a kept list in an exception": (
        "L = []\ndef f():\n    L.append(1)\n    raise ValueError(L)",
        "found = []\nfor _ in range(2):\n    try: f()\n"
        "    except ValueError as e: found.append(e.args[0])\nassert found == [[1], [1, 1]]",
    ),
    "an argument, changed before a callback": (
        "def f(a, g):\n    a.append(1)\n    g()",
        "a, seen = [], []\nf(a, lambda: seen.append(list(a)))\nassert seen == [[]]",
    ),
    "an argument, changed by a callback": (
        "def f(a, g):\n    g()\n    return len(a)",
        "a = []\nassert f(a, lambda: a.append(1)) == 0",
    ),
    "an argument, given to a callback": (
        "def f(a, g): return g(a)",
        "a = []\nassert f(a, lambda x: x is not a)",
    ),
    "an alarm in the middle of a call": (
        "import time\ndef f(n):\n    time.sleep(0.4 if n == 1 else 0)\n    return n * 10",
        "import signal\ndef limited(n):\n    def late(*_): raise TimeoutError\n"
        "    signal.signal(signal.SIGALRM, late)\n    signal.setitimer(signal.ITIMER_REAL, 0.1)\n"
        "    try: return f(n)\n    except TimeoutError: return 'slow'\n"
        "    finally: signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "assert [limited(n) for n in (1, 2, 3)] == ['slow', 20, 30]",
    ),
}


@pytest.mark.parametrize(("source", "test"), ODD.values(), ids=ODD)
def test_where_copies_differ_from_the_object_the_verdict_is_a_token(judge, source, test):
    try:
        exec(f"{source}\n{test}", {"__name__": "plain"})
        is_right = True
    except AssertionError:
        is_right = False
    reply = judge(source, test, entry_point="f")
    assert (reply.status == "pass") == is_right or reply.integrity == "token", reply.status


EVEN = {
    "rows that a key function reads": (
        "def f(rows, key): return sorted(rows, key=key)",
        "assert f([[2, 'b'], [1, 'a']], lambda row: row[0]) == [[1, 'a'], [2, 'b']]",
    ),
    "lists that a callback makes": (
        "def f(g, n): return [g(i) for i in range(n)]",
        "assert f(lambda i: [i, [i]], 2) == [[0, [0]], [1, [1]]]",
    ),
    "a cached list, compared": (
        "C = {}\ndef f(n): return C.setdefault(n, [n])",
        "assert f(1) == [1] and f(1) == [1] and f(2) == [2]",
    ),
    "a list that a callback fills": (
        "def f(g):\n    rows = [1]\n    g(rows)\n    return rows",
        "assert f(lambda rows: rows.append(2)) == [1, 2]",
    ),
}


@pytest.mark.parametrize(("source", "test"), EVEN.values(), ids=EVEN)
def test_where_copies_are_as_good_as_the_object_the_verdict_is_split(judge, source, test):
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


CANDIDATE = "import sys\npeer = sys._getframe(1).f_locals['peer']\n"
COUNTS = (
    "from collections import Counter",
    "assert Counter(f([1, 2, 2])) == Counter([1, 2, 2])",
    f"{CANDIDATE}from collections import Counter\ndef grab(): return Counter\n"
    "def reduce(n): return grab, (), (None, {'__eq__': slice})\n"
    "def f(x):\n    e = ValueError()\n    e.__dict__['__reduce_ex__'] = reduce\n"
    "    try: peer.ask('copy', e, False)\n    except Exception: pass\n    return []",
    "def f(x): return []",
    "fail",
)
FRACTIONS = (
    "from fractions import Fraction",
    "assert f(Fraction(1, 2)) * 2 == 1",
    f"{CANDIDATE}from fractions import Fraction\ndef f(x):\n"
    "    for name in ('__module__', '__name__', '__qualname__'):\n"
    "        try: peer.ask('set', Fraction, name, 'tests')\n        except Exception: pass\n"
    "    return []",
    "from fractions import Fraction\ndef f(x):\n    assert isinstance(x, Fraction)\n    return x",
    "pass",
)
ALARM = (
    "import signal\nsignal.alarm(1)",
    "assert f(1) == 1\nsignal.alarm(0)",
    "def f(x): return 0",
    "import time\ntime.sleep(1.3)\ndef f(x): return x",
    "pass",
)


@pytest.mark.security
@pytest.mark.parametrize("case", [COUNTS, FRACTIONS, ALARM], ids=["copy", "set", "alarm"])
def test_what_a_candidate_does_to_the_judge_ends_with_it(backend, case):
    """The judge's classes, their names, its timers: the next program meets none of it."""
    given, check, hostile, honest, expected = case
    requests = [
        Request(name, "function", source.encode(), (f"{given}\n{check}",), "f")
        for name, source in (("a", hostile), ("b", honest), ("c", hostile), ("d", honest))
    ]
    replies = list(backend.run(requests))
    assert [reply.status for reply in replies[::2]] == ["fail", "fail"]
    assert {(r.status, r.integrity) for r in replies[1::2]} == {(expected, "split")}
