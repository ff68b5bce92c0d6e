"""What a verdict rests on: `split` is what plain execution says; all else is a `token`."""

import pytest

RAISES = {
    "KeyError of a dictionary": ("{}['k']", "KeyError", "str(e) == \"'k'\" and e.args == ('k',)"),
    "several arguments": ("raise_(ValueError('a', 1))", "ValueError", "e.args == ('a', 1)"),
    "no argument": ("raise_(ValueError)", "ValueError", "e.args == () and str(e) == ''"),
    "its own attribute": ("raise_(odd())", "ValueError", "e.code == 5"),
    "a cause": ("caused()", "ValueError", "type(e.__cause__) is ZeroDivisionError"),
    "a file that is missing": (
        "open('/nope')",
        "FileNotFoundError",
        "(e.errno, e.filename) == (2, '/nope')",
    ),
    "UnicodeDecodeError": ("b'\\xff'.decode()", "UnicodeDecodeError", "e.start == 0"),
    "UnicodeDecodeError by its base": ("b'\\xff'.decode()", "ValueError", "True"),
    "JSONDecodeError": ("json.loads('{')", "json.JSONDecodeError", "e.pos == 1"),
    "StatisticsError": ("statistics.mean([])", "statistics.StatisticsError", "True"),
    "DivisionByZero": ("1 / decimal.Decimal(0)", "decimal.DivisionByZero", "True"),
    "queue.Empty": ("queue.Queue().get_nowait()", "queue.Empty", "True"),
    "re.error": ("re.compile('(')", "re.error", "e.pos == 0"),
    "struct.error": ("struct.pack('b', 'a')", "struct.error", "True"),
    "a group": (
        "raise_(ExceptionGroup('a', [KeyError(1)]))",
        "ExceptionGroup",
        "len(e.exceptions)",
    ),
}


@pytest.mark.parametrize(("body", "kind", "check"), RAISES.values(), ids=RAISES)
def test_an_exception_keeps_its_type_and_what_it_says(judge, body, kind, check):
    modules = "import decimal, json, queue, re, statistics, struct\n"
    source = (
        f"{modules}def raise_(e): raise e\ndef odd():\n    e = ValueError()\n    e.code = 5\n"
        "    return e\ndef caused():\n    try: 1 / 0\n"
        f"    except ArithmeticError as e: raise ValueError from e\ndef f(): {body}"
    )
    test = f"{modules}try:\n    f()\nexcept {kind} as e:\n    assert {check}\nelse:\n    assert 0"
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


POINT = (
    "from dataclasses import dataclass\n@dataclass(frozen=True, order=True)\n"
    "class P:\n    x: int\n    def __add__(self, o): return P(self.x + o.x)\n"
    "    def __radd__(self, o): return P(self.x + o)\n    def __abs__(self): return abs(self.x)\n"
    "    def __index__(self): return self.x\n    def __enter__(self): return self.x\n"
    "    def __exit__(self, kind, error, trace): return kind is KeyError\n"
    "    def __contains__(self, x): return x == self.x\n"
    "    def __format__(self, how): return how + str(self.x)\n"
)
OF_ITSELF = {
    "equality": (POINT, "assert P(1) == P(1) and P(1) != P(2) and P(1) != 1"),
    "order": (POINT, "assert P(1) < P(2) and [p.x for p in sorted([P(2), P(1)])] == [1, 2]"),
    "hash": (POINT, "assert len({P(1), P(1), P(2)}) == 2 and {P(1): 5}[P(1)] == 5"),
    "text": (POINT, "assert repr(P(1)) == str(P(1)) == 'P(x=1)' and f'{P(1):a}' == 'a1'"),
    "arithmetic": (POINT, "assert (P(1) + P(2)).x == 3 and sum([P(1), P(2)]).x == 3"),
    "conversion": (POINT, "assert abs(P(-1)) == 1 and [5, 6][P(1)] == 6"),
    "context": (POINT, "with P(1) as x:\n    assert x == 1\n    {}[0]"),
    "membership": (POINT, "assert 1 in P(1) and 2 not in P(1)"),
    "class": (POINT, "assert isinstance(P(1), P) and type(P(1)).__name__ == P.__name__ == 'P'"),
    "attributes": (POINT, "assert vars(P(1)) == P(1).__dict__ == {'x': 1}"),
    "frozen": (POINT, "try:\n    P(1).x = 2\nexcept AttributeError: pass\nelse: assert 0"),
    "copy": (POINT, "import copy\np = P(1)\nq = copy.deepcopy(p)\nassert q == p"),
    "a named tuple": (
        "from typing import NamedTuple\nclass N(NamedTuple):\n    x: int\ndef f(): return [N(1)]",
        "assert f() == [(1,)] and f()[0].x == 1",
    ),
    "enumerations": (
        "import enum\nclass E(enum.IntEnum):\n    A = 1\n    B = 2\ndef f(x): return E(x)",
        "assert f(1) == 1 and f(2) is f(2) and isinstance(f(1), int) and f(1) < 2",
    ),
    "subclasses of Python's types": (
        "class S(str): pass\nclass L(list): pass\nclass D(dict): pass\n"
        "def f(): return S('a'), L([1, 2]), D(a=1)",
        "s, l, d = f()\nassert (s, l, d) == ('a', [1, 2], {'a': 1})\n"
        "assert l[1:] == [2] and s + 'b' == 'ab'",
    ),
    "exceptions of its own": (
        "class E(ValueError):\n    def __init__(self, code):\n        super().__init__('odd')\n"
        "        self.code = code\ndef f(): raise E(5)",
        "try:\n    f()\nexcept E as e:\n    assert (e.code, str(e)) == (5, 'odd')\nelse: assert 0",
    ),
    "coroutines": (
        "import asyncio\nasync def f(x):\n    await asyncio.sleep(0)\n    return x",
        "import asyncio\nasync def g(): return await f(3) + sum(await asyncio.gather(f(1), f(2)))\n"
        "assert asyncio.run(f(5)) == 5 and asyncio.run(g()) == 6",
    ),
    "an exit": (
        "import sys\ndef f(): sys.exit(2)",
        "try:\n    f()\nexcept SystemExit as e:\n    assert e.code == 2\nelse: assert 0",
    ),
    "a name that Python has, too": (
        "def f(x): return x\ndef pow(a, b): return a",
        "assert pow(f(2), 3) == 2",
    ),
    "another class of a known name": (
        "class Counter: n = 7\ndef f(): pass",
        "assert Counter().n == 7",
    ),
    "a text of its function": (
        "def f():\n    'hello'",
        "assert f.__doc__ == 'hello' and f.__name__ == 'f'",
    ),
    "a global that is bound anew": (
        "N = 0\ndef f():\n    global N\n    N += 1",
        "assert N == 0\nf()\nf()\nassert N == 2",
    ),
}


@pytest.mark.parametrize(("source", "test"), OF_ITSELF.values(), ids=OF_ITSELF)
def test_what_an_object_says_of_itself_is_what_plain_execution_says_and_a_token(
    judge, source, test
):
    reply = judge(source, test, entry_point="f" if "def f" in source else "P")
    assert (reply.status, reply.integrity) == ("pass", "token"), reply.stderr


UNDECIDED = {
    "captured output": (
        "def f(): print('hi')",
        "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): f()\n"
        "assert out.getvalue() == 'hi\\n'",
    ),
    "no captured output": (
        "def f(): print('hi')",
        "import io, sys\nsys.stdout = io.StringIO()\nf()\nassert sys.stdout.getvalue() == ''",
    ),
    "replaced input": (
        "def f(): return input()",
        "from unittest.mock import patch\n"
        "with patch('builtins.input', lambda: '3'): assert f() == '3'",
    ),
    "a seed": (
        "import random\ndef f(): return random.random()",
        "import random\nrandom.seed(3)\na = f()\nrandom.seed(3)\nassert a == random.random()",
    ),
    "a tuple that comes back": ("def f(x): return x", "x = (1, 2)\nassert f(x) is x"),
    "a text that should not come back": ("def f(x): return x", "x = 'ab'\nassert f(x) is not x"),
    "a list inside a test's object": (
        "def f(o): o.items.append(1)",
        "class O: pass\no = O()\no.items = []\nf(o)\nassert o.items == [1]",
    ),
    "a dictionary that it keeps and answers": (
        "kept = {}\ndef f(x):\n    kept[x] = 1\n    return kept",
        "first = f(1)\nf(2)\nassert first == {1: 1, 2: 1}",
    ),
    "an argument that it keeps and changes later": (
        "def f(x): return lambda: x.append(1)",
        "x = []\nf(x)()\nassert x == [1]",
    ),
    "an argument that it keeps and the test changes": (
        "kept = []\ndef f(*x):\n    kept.extend(x)\n    return kept[0][0]",
        "x = [1]\nf(x)\nx[0] = 2\nassert f() == 2",
    ),
    "a result that it keeps and the test changes": (
        "kept = []\ndef f(): return kept",
        "f().append(1)\nassert f() == [1]",
    ),
    "a name of its own that the test replaces": (
        "def g(): return 1\ndef f(): return g()",
        "def g(): return 2\nassert f() == 2",
    ),
    "a name that the test alone has": ("def f(): return X", "X = 5\nassert f() == 5"),
    "a test's object that it takes apart": (
        "import dataclasses\ndef f(p): return dataclasses.asdict(p)",
        "import dataclasses\n@dataclasses.dataclass\nclass P: x: int\nassert f(P(1)) == {'x': 1}",
    ),
    "a base class": ("class f: pass", "class B(f): pass\nassert B()"),
    "a pickle": ("class f: pass", "import pickle\nassert pickle.loads(pickle.dumps(f()))"),
    "a class by identity": ("class f: pass", "assert type(f()) is f"),
    "a value nested too deep": (
        "def f(n):\n    x = []\n    for _ in range(n): x = [x]\n    return x",
        "assert f(200)",
    ),
    "an end of iteration": (
        "def f(): raise StopIteration",
        "try: f()\nexcept StopIteration: pass\nelse: assert 0",
    ),
}


@pytest.mark.parametrize(("source", "test"), UNDECIDED.values(), ids=UNDECIDED)
def test_what_two_processes_cannot_settle_is_never_called_split(judge, source, test):
    assert judge(source, test, entry_point="f").integrity == "token"


WRONG = {
    "a function of a name that Python has": (
        "def pow(a, b): return 0",
        "assert pow(2, 3) == 8",
        None,
    ),
    "a function of the library's name": (
        "def isclose(a, b): return ''",
        "assert isclose(1, 1) is True",
        None,
    ),
    "a second one": ("def f(x): return x\ndef sqrt(x): return ''", "assert f(sqrt(4)) == 2", "f"),
    "no docstring": ("def f(): pass", "assert f.__doc__", "f"),
    "equal objects": (
        "class P:\n    def __eq__(self, other): return True",
        "assert P() != P()",
        "P",
    ),
    "another type": ("def f(x): return type(x)", "assert f('a') != str", "f"),
}


@pytest.mark.parametrize(("source", "test", "entry_point"), WRONG.values(), ids=WRONG)
def test_a_wrong_program_fails_as_in_plain_execution(judge, source, test, entry_point):
    assert judge(source, test, entry_point=entry_point).tests == ("fail",)


def test_what_a_test_binds_itself_is_not_the_candidates(judge):
    source = "def f(x): return x\ndef sqrt(x): return 5\ndef g(x): return 6"
    test = "from math import sqrt\ndef g(x): return 7\nassert f(sqrt(4)) == 2 and g(1) == 7"
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


@pytest.mark.parametrize("name", ["µ", "ﬁnd"])
def test_an_entry_point_is_read_as_python_reads_it(judge, name):
    reply = judge(f"def {name}(x): return x", f"assert {name}(3) == 3", entry_point=name)
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


def test_a_seed_of_the_tests_own_numbers_is_nobodys_word(judge):
    test = "import random\nrandom.seed(1)\nxs = [random.random()]\nassert f(xs) == xs"
    assert judge("def f(x): return x", test, entry_point="f").integrity == "split"


def test_an_answer_that_does_not_fit_into_memory_is_named(judge):
    reply = judge("def f(): return b'x' * (150 << 20)", "assert f()", entry_point="f")
    assert (reply.status, reply.limit_hit) == ("memory", "memory_bytes")


STACK = (
    "class Stack:\n    def __init__(self): self.items = []\n"
    "    def push(self, x): self.items.append(x)\n    def pop(self): return self.items.pop()\n"
    "    def __len__(self): return len(self.items)"
)


@pytest.mark.parametrize(
    "test",
    [
        "s = Stack()\ns.push(4)\nassert len(s) == 1 and s.pop() == 4",
        "assert Stack().items == []",
        "s = Stack()\ns.items = [4]\nassert len(s) == 1",
        "assert not Stack()",
    ],
)
def test_what_an_instance_says_of_itself_is_a_token(judge, test):
    reply = judge(STACK, test, entry_point="Stack")
    assert (reply.status, reply.integrity) == ("pass", "token"), reply.stderr


def test_an_answer_that_takes_the_place_of_a_text_says_so(judge):
    source = "class S:\n    def startswith(self, start): return True\ndef f(x): return S()"
    reply = judge(source, "assert f('a').startswith('ab')", entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "token")
    assert judge("def f(x): return x", "assert f('a').startswith('a')").integrity == "split"


@pytest.mark.parametrize("method", ["lambda other: True", "n.twin"])
def test_a_method_that_the_candidate_gives_to_a_tests_object_is_a_token(judge, method):
    test = (
        "class Node:\n    def __init__(self, v): self.v = v\n"
        "    def same(self, other): return self.v == other.v\n    def twin(self, other): return 1\n"
        "n = Node(1)\nf(n)\nassert n.same(Node(42))"
    )
    reply = judge(f"def f(n): n.same = {method}", test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "token"), reply.stderr


def test_what_a_candidate_was_told_in_one_test_is_no_verdict_of_its_own_in_the_next(judge):
    source = (
        "told = []\nclass S:\n    def startswith(self, start): told.append(start)\n"
        "def f(x): return told[-1] if told else S()"
    )
    tests = ("assert f(1).startswith('ab')", "assert f(2) == 'ab'")
    reply = judge(source, *tests, entry_point="f")
    assert (reply.tests, reply.integrity) == (("fail", "pass"), "token")


def test_a_candidate_that_is_told_what_it_should_hold_is_no_judge_of_it(judge):
    source = (
        "told = []\nclass Yes:\n"
        "    def __contains__(self, x):\n        told.append(x)\n        return True\n"
        "def f(x): return told[-1] if told else Yes()"
    )
    reply = judge(source, "assert 42 in f(1)", "assert f(2) == 42", entry_point="f")
    assert (reply.tests, reply.integrity) == (("pass", "pass"), "token")


def test_a_candidate_without_a_membership_of_its_own_is_neither_asked_nor_told(judge):
    source = (
        "class Items:\n    def __iter__(self): return iter((7, x))\n"
        "def f(given):\n    global x\n    x = given\n    return Items()"
    )
    tests = ("assert 42 in f(1)", "assert f(2) == 42", "assert 7 in f(3)")
    reply = judge(source, *tests, entry_point="f")
    assert (reply.tests, reply.integrity) == (("fail", "fail", "pass"), "split")


def test_two_answers_that_are_no_data_are_compared_by_themselves_alone(judge):
    source = "class A:\n    def __eq__(self, other): return {}\ndef f(): return A()"
    tests = ("assert f() == f()", "x = f()\nassert x is x and f() is not x")
    for says, first in (("True", "pass"), ("False", "fail")):
        reply = judge(source.replace("{}", says), *tests, entry_point="f")
        assert (reply.tests, reply.integrity) == ((first, "pass"), "token")
    reply = judge("def f(): return object()", "assert f() != f()", entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split")
