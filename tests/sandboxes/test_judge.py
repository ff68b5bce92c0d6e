"""What a test may do with a candidate that lives in another process."""

import pytest
from trillium_sandbox import Limits, Request

FAIR = {
    "plain values": ("def f(x): return x * 2", "assert f(3) == 6 and f('a') == 'aa'"),
    "keyword arguments": ("def f(a, *, b=1): return a - b", "assert f(5, b=3) == 2"),
    "exact types": ("def f(): return 1", "assert type(f()) is int and isinstance(f(), int)"),
    "nested containers": (
        "def f(): return {'a': [(1, 2.5), {3}], None: b'x'}",
        "assert f() == {'a': [(1, 2.5), {3}], None: b'x'}",
    ),
    "nan and infinity": (
        "def f(): return [float('nan'), float('-inf')]",
        "import math\na, b = f()\nassert math.isnan(a) and b == -math.inf",
    ),
    "huge integers": ("def f(): return 7 ** 5000", "assert f() == 7 ** 5000"),
    "standard containers": (
        "from collections import *\ndef f(): return Counter('aab'), deque([1]), OrderedDict(a=1)",
        "from collections import *\nassert f() == (Counter('aab'), deque([1]), OrderedDict(a=1))",
    ),
    "exact decimals and fractions": (
        "from decimal import Decimal\nfrom fractions import Fraction\n"
        "def f(): return Decimal('0.10'), Fraction(1, 3)",
        "from decimal import Decimal\nfrom fractions import Fraction\n"
        "assert f() == (Decimal('0.1'), Fraction(1, 3))",
    ),
    "dates": (
        "import datetime\ndef f(d): return d + datetime.timedelta(days=1)",
        "import datetime\nassert f(datetime.date(2024, 2, 28)) == datetime.date(2024, 2, 29)",
    ),
    "arguments changed in place": (
        "def f(x): x.append(1); x[0].sort()",
        "inner = [3, 2]\nx = [inner]\nassert f(x) is None\nassert x == [[2, 3], 1]\n"
        "assert inner == [2, 3]",
    ),
    "dictionaries and sets changed in place": (
        "def f(d, s):\n    d['b'] = d.pop('a')\n    s.discard(1)",
        "d, s = {'a': 1}, {1, 2}\nf(d, s)\nassert (d, s) == ({'b': 1}, {2})",
    ),
    "arguments changed by a call that raises": (
        "def f(balance, n):\n    balance[0] -= n\n    raise ValueError(balance)",
        "balance = [100]\ntry:\n    f(balance, 500)\nexcept ValueError:\n    pass\n"
        "assert balance == [-400]",
    ),
    "queues with a bound": (
        "def f(q):\n    q.append(9)\n    return q if len(q) == 2 else None",
        "from collections import deque\nq = deque([1, 2], maxlen=2)\n"
        "assert f(q) is q and list(q) == [2, 9] and q.maxlen == 2",
    ),
    "aliased arguments": (
        "def f(grid): grid[0][0] = 7",
        "grid = [[0]] * 2\nf(grid)\nassert grid == [[7], [7]]",
    ),
    "lists moved in place": (
        "def f(rows): rows.sort()",
        "rows = [[3], [1], [2]]\nexpected = sorted(rows)\nf(rows)\nassert rows == expected\n"
        "assert all(a is b for a, b in zip(rows, expected))",
    ),
    "dictionaries moved in place": (
        "def f(people): people.sort(key=lambda person: person['n'])",
        "people = [{'n': 'b'}, {'n': 'a'}]\nexpected = people[::-1]\nf(people)\n"
        "assert people == expected == [{'n': 'a'}, {'n': 'b'}]",
    ),
    "what was taken out and then changed": (
        "def f(rows, *, kept): kept['first'] = rows.pop(0); kept['first'].append(9)",
        "first, kept = [1], {}\nrows = [first, [2]]\nf(rows, kept=kept)\n"
        "assert (rows, first) == ([[2]], [1, 9]) and kept['first'] is first",
    ),
    "an argument as result": (
        "def f(x): x.append(x); return x",
        "x = [1]\ny = f(x)\nassert y is x and x[1] is x and len(x) == 2",
    ),
    "bytes changed in place": (
        "def f(x, y): x += b'c'; return x is y",
        "x = bytearray(b'ab')\nassert f(x, x) and x == b'abc'",
    ),
    "queues, defaults and counts changed in place": (
        "def f(q, d, c): q.appendleft(0); d['a'].append(1); c['x'] += 2",
        "from collections import *\nq, d, c = deque([1]), defaultdict(list, a=[]), Counter('x')\n"
        "inner = d['a']\nf(q, d, c)\nassert (q, d['b'], c) == (deque([0, 1]), [], Counter(x=3))\n"
        "assert d['a'] is inner and inner == [1]",
    ),
    "what it changes of a function's arguments": (
        "def f(g):\n    rows = [[2], [1]]\n    first = rows[0]\n    g(rows)\n"
        "    return rows[1] is first and rows",
        "assert f(lambda rows: rows.sort()) == [[1], [2]]",
    ),
    "its exceptions by type": (
        "def f(x): return 1 // x",
        "try:\n    f(0)\n    assert False\nexcept ZeroDivisionError as e:\n"
        "    assert 'zero' in str(e)",
    ),
    "subclasses of exceptions by their base": (
        "class Odd(KeyError): pass\ndef f(): raise Odd('k')",
        "try:\n    f()\n    assert False\nexcept KeyError:\n    pass",
    ),
    "functions as arguments": (
        "def f(g, xs): return [g(x) for x in xs]",
        "assert f(lambda x: x + 1, [1, 2]) == [2, 3]",
    ),
    "builtins as arguments": ("def f(g, xs): return g(xs)", "assert f(sorted, [2, 1]) == [1, 2]"),
    "exceptions of such functions": (
        "def f(g):\n    try: return g()\n    except ValueError: return 'caught'",
        "def g(): raise ValueError\nassert f(g) == 'caught'",
    ),
    "functions as results": (
        "def f(n): return lambda x: x + n",
        "add = f(2)\nassert callable(add) and add(3) == 5",
    ),
    "iterators as arguments": ("def f(xs): return sum(xs)", "assert f(x for x in (1, 2)) == 3"),
    "members of what it returns": (
        "def f(xs): return (x * x for x in xs)",
        "assert 9 in f([2, 3]) and 5 not in f([2, 3])",
    ),
    "members of the test's own objects": (
        "def f(known, x): return x in known",
        "class Even:\n    def __contains__(self, x): return x % 2 == 0\n"
        "assert f(Even(), 2) and not f(Even(), 3)",
    ),
    "ranges": ("def f(r): return r[::2]", "assert f(range(6)) == range(0, 6, 2)"),
    "generators as results": (
        "def f(n):\n    for i in range(n): yield i",
        "g = f(3)\nassert next(g) == 0\nassert list(g) == [1, 2]",
    ),
    "a map object as result": ("def f(xs): return map(abs, xs)", "assert list(f([-1])) == [1]"),
    "instances of a class": (
        "class f:\n    def __init__(self): self.items = []\n"
        "    def __len__(self): return len(self.items)\n"
        "    def __setitem__(self, key, x): self.items.insert(key, x)\n"
        "    def __getitem__(self, key): return self.items[key]",
        "s = f()\ns[0] = 4\nassert len(s) == 1 and s[0] == 4 and list(s) == [4]",
    ),
    "objects of the test's own classes": (
        "def f(node):\n    total = 0\n    while node: total += node.value; node = node.next\n"
        "    return total",
        "class Node:\n    def __init__(self, v, n=None): self.value, self.next = v, n\n"
        "assert f(Node(1, Node(2))) == 3",
    ),
    "attributes set on them": (
        "def f(node): node.value = 9",
        "class Node: value = 0\nn = Node()\nf(n)\nassert n.value == 9",
    ),
    "a check function around it": (
        "def f(x): return x",
        "def check(candidate):\n    assert candidate(1) == 1\n    assert candidate('') == ''\n"
        "check(f)",
    ),
    "the name candidate": ("def f(x): return x", "assert candidate(1) == 1"),
    "modules it does not import": ("def f(): return 4.0", "assert math.sqrt(16) == f()"),
    "recursion": ("def f(n): return n and n + f(n - 1)", "assert f(500) == 125250"),
    "types as arguments": (
        "def f(xs, kind): return [x for x in xs if not isinstance(x, kind)]",
        "assert f((4, 'a', 7.5), int) == ['a', 7.5] and f((1, 2.5, 'a'), (int, float)) == ['a']",
    ),
    "types as keys": (
        "def f(xs, key):\n    seen = {}\n    for x in xs: seen.setdefault(key(x), x)\n"
        "    return list(seen.values())",
        "assert f([1, 'a', 2], key=type) == [1, 'a']",
    ),
    "types as results": (
        "def f(x): return type(x)",
        "assert f(3) is int and f('a') == str and f('a') != int and f(ValueError()) is ValueError",
    ),
    "functions of the library by name": (
        "import math\ndef f(g): return g is math.sqrt and g(16)",
        "import math\nassert f(math.sqrt) == 4",
    ),
    "slices": ("def f(x, s): return x[s], s", "assert f([1, 2], slice(1)) == ([1], slice(1))"),
    "patterns, zones and paths": (
        "def f(p, z, u, q): return p.findall('aba'), z, u, q",
        "import datetime, pathlib, re, uuid\nz, u = datetime.timezone.utc, uuid.UUID(int=7)\n"
        "q = pathlib.PurePosixPath('a/b')\n"
        "assert f(re.compile('a'), z, u, q) == (['a', 'a'], z, u, q)",
    ),
    "the second of two equal hours": (
        "import datetime\ndef f(): return datetime.datetime(2020, 1, 1, fold=1)",
        "assert f().fold == 1",
    ),
    "a nan that stays itself": (
        "def f(x): return list(x)",
        "n = float('nan')\nassert f([n]) == [n] and f([n]) != [float('nan')]",
    ),
    "defaults that are made": (
        "from collections import defaultdict\n"
        "def f(d):\n    d['k'].append(1)\n    return d, defaultdict(lambda: 5)",
        "from collections import defaultdict\nd, made = f(defaultdict(list))\n"
        "assert d == {'k': [1]} and d['z'] == [] and made['y'] == 5",
    ),
    "objects that stay themselves": (
        "def g(): pass\ndef f(*same): return g if not same else same[0] is same[1]",
        "assert f() is f() and f() == f() and len({f(), f()}) == 1 and f(len, len)\n"
        "class A: pass\na = A()\nassert f(a, a) and not f(a, A())",
    ),
    "answers that it keeps as they are": (
        "from functools import lru_cache\n@lru_cache\ndef f(n): return [n, {n}]",
        "assert f(1) == [1, {1}] and f(2) == [2, {2}] and f(1) == [1, {1}]",
    ),
    "containers that nobody else holds": (
        "def f(rows):\n    rows.append([1])\n    return rows, [rows[0]], {'a': [2]}",
        "a, b, c = f([[0]])\na.append(5)\nb[0].append(6)\nc['a'].append(7)\n"
        "assert f([[3]]) == ([[3], [1]], [[3]], {'a': [2]})",
    ),
    "what its results can do": (
        "def f(n): return object() if n == 0 else iter([1]) if n == 1 else lambda: 1",
        "from collections.abc import Callable, Iterator, Sized\n"
        "assert not callable(f(0)) and not isinstance(f(0), (Iterator, Sized, Callable))\n"
        "assert not hasattr(f(0), '__len__') and isinstance(f(1), Iterator) and callable(f(2))",
    ),
    "its name in a class, in a text and among the globals": (
        "def f(x): return x",
        "class T:\n    v = f(3)\ndef g(): return eval('f(4)')\n"
        "assert (T.v, g(), 'f' in globals()) == (3, 4, True)",
    ),
    "names of the library that both import": (
        "from collections import *\nfrom math import *\nimport os\ndef f(x): return sqrt(x)",
        "assert f(16) == sqrt(16) and Counter('a') == {'a': 1} and os.sep == '/'",
    ),
    "what it prints, ignored": ("def f(): print('noise'); return 1", "assert f() == 1"),
    "a long argument": ("def f(x): return len(x)", "assert f('x' * 3000000) == 3000000"),
}


@pytest.mark.parametrize(("source", "test"), FAIR.values(), ids=FAIR)
def test_a_test_may_use(judge, source, test):
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "Odd"])
@pytest.mark.parametrize(
    "test",
    [
        "assert all(map(lambda case: f(case[0]) == case[1], [(1, 2), (3, 4)]))",
        "for answer in map(f, [1, 2]):\n    assert answer == 5",
        "assert list(map(f, [1, 2])) == []",
        "for answer in iter(f, 0):\n    assert answer == 5",
        "assert list(f)",
    ],
)
def test_a_candidate_cannot_end_the_loops_of_a_test(judge, test, error):
    source = (
        f"class Odd(StopIteration): pass\nclass F:\n"
        f"    def __call__(self, *x): raise {error}\n    __iter__ = __call__\nf = F()"
    )
    reply = judge(source, test, entry_point="f")
    assert (reply.tests, reply.integrity) == (("error",), "token")


def test_a_wrong_change_of_an_argument_is_no_change_of_what_was_expected(judge):
    test = "rows = [[3], [1], [2]]\nexpected = sorted(rows)\nf(rows)\nassert rows == expected"
    for body in ("rows[:] = [[0], [0], [0]]", "rows.clear()", "rows[:] = rows[:1] * 3", "pass"):
        assert judge(f"def f(rows): {body}", test, entry_point="f").tests == ("fail",)


def test_each_test_has_a_verdict_of_its_own(judge):
    source = "def f(x):\n    if x == 3: raise ValueError('three')\n    return x"
    tests = ("assert f(1) == 1", "assert f(2) == 3", "assert f(3) == 3", "assert (", "assert g(1)")
    reply = judge(source, *tests, entry_point="f")
    assert reply.tests == ("pass", "fail", "error", "error", "error")
    assert reply.status == "fail"
    assert b"test 2: ValueError: three" in reply.stderr


def test_tests_do_not_share_names(judge):
    reply = judge("def f(): return 1", "y = f()\nassert y", "assert y == 1", entry_point="f")
    assert reply.tests == ("pass", "error")


def test_the_entry_point_is_the_first_candidate_name_when_none_is_given(judge):
    source = "def f(x): return x\ndef g(x): return x"
    assert judge(source, "assert f(1) == 1").integrity == "split"
    assert judge(source, "assert f(g(1)) == 1").integrity == "token"


def test_a_candidate_that_does_not_load_errs_in_every_test(judge):
    reply = judge("def f(:", "assert f(1)", "assert f(2)", entry_point="f")
    assert (reply.status, reply.tests) == ("error", ("error", "error"))
    assert b"SyntaxError" in reply.stderr


def test_a_crash_costs_the_candidate_one_test(judge):
    source = "import os\ndef f(x):\n    if x == 2: os._exit(7)\n    return x"
    tests = tuple(f"assert f({x}) == {x}" for x in (1, 2, 3))
    reply = judge(source, *tests, entry_point="f")
    assert reply.tests == ("pass", "error", "pass")


def test_memory_beyond_the_limit_is_named(judge):
    reply = judge("def f(): return bytes(1 << 30)", "assert f()", entry_point="f")
    assert (reply.status, reply.limit_hit) == ("memory", "memory_bytes")


def test_the_candidates_output_comes_back(judge):
    reply = judge("print('loading')\ndef f(): print('called')", "f()", entry_point="f")
    assert reply.stdout == b"loading\ncalled\n"


def test_requests_with_the_same_tests_share_no_state(backend):
    sources = [
        f"count = {n}\ndef f():\n    global count\n    count += 1\n    return count"
        for n in range(9)
    ]
    tests = (
        "first = f()\nassert f() == first + 1",
        "assert 'first' not in globals()",
        "assert f() == 7",
    )
    requests = [Request(str(n), "function", s.encode(), tests, "f") for n, s in enumerate(sources)]
    verdicts = [reply.tests for reply in backend.run(requests)]
    assert verdicts == [("pass", "pass", "pass" if n == 4 else "fail") for n in range(9)]


def test_a_judge_that_runs_full_starts_anew(backend):
    # Each run of the test leaves 60 MB behind in its process; the limit is 256 MB.
    hoard = "import sys\nsys.hoard = getattr(sys, 'hoard', []) + [bytearray(60 << 20)]\nassert f()"
    requests = [Request(str(n), "function", b"def f(): return 1", (hoard,), "f") for n in range(16)]
    assert {reply.status for reply in backend.run(requests)} == {"pass"}


def test_a_stuck_candidate_does_not_cost_the_judge(backend):
    stuck = b"def f(x):\n    while x: pass"
    fine = b"def f(x): return x"
    limits = Limits(wall_s=0.2)
    requests = [
        Request(
            str(n), "function", stuck if n % 2 else fine, ("assert f(1) == 1",), "f", limits=limits
        )
        for n in range(6)
    ]
    assert [reply.status for reply in backend.run(requests)] == ["pass", "timeout"] * 3
