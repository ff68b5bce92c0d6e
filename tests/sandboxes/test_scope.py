"""What a test's names, text and course say of a verdict: where two processes differ from one."""

import pytest

DIFFER = {
    "a helper that the test binds": (
        "def helper(x): return x + 1\ndef f(x): return helper(x) * 2",
        "def helper(x): return x\nassert f(1) == 4",
        "pass",
    ),
    "a global that the test binds": (
        "counter = 0\ndef f():\n    global counter\n    counter += 1",
        "counter = 0\nf()\nassert counter == 0",
        "pass",
    ),
    "a list that the test binds": (
        "result = []\ndef f(x): result.append(x)",
        "result = []\nf(1)\nassert result == []",
        "pass",
    ),
    "a name that the test deletes": ("counter = 0\ndef f(): return 1", "del counter", "error"),
    "a name that is looked up by text": (
        "def g(): return 1\ndef f(): return globals()['g']()",
        "def g(): return 2\nassert f() == 1",
        "pass",
    ),
    "decimals that are rounded otherwise": (
        "from decimal import *\ngetcontext().prec = 3\ndef f(x): return Decimal(x)",
        "from decimal import Decimal\nassert f('1.23456') + 0 == Decimal('1.23456')",
        "pass",
    ),
    "decimals that are rounded less": (
        "from decimal import *\ngetcontext().prec = 50\ndef f(x): return Decimal(1) / x",
        "assert f(3) == Decimal(1) / Decimal(3)",
        "fail",
    ),
    "numbers that are too long to print": (
        "import sys\nsys.set_int_max_str_digits(0)\ndef f(): return 10 ** 5000",
        "assert len(str(f())) == 5001",
        "error",
    ),
    "the environment": (
        "import os\ndef f(): os.environ['A'] = '1'",
        "import os\nf()\nassert os.getenv('A') == '1'",
        "fail",
    ),
    "the working folder": (
        "import os\ndef f():\n    os.makedirs('sub')\n    os.chdir('sub')\n    return os.getcwd()",
        "import os\nassert f() == os.getcwd()",
        "fail",
    ),
    "a warning": (
        "import warnings\ndef f(): warnings.warn('old', DeprecationWarning)",
        "import unittest\nwith unittest.TestCase().assertWarns(DeprecationWarning): f()",
        "fail",
    ),
    "a warning that is not missed": (
        "import warnings\ndef f(): warnings.warn('old')",
        "from warnings import catch_warnings\nwith catch_warnings(record=True) as found: f()\n"
        "assert found == []",
        "pass",
    ),
    "no logs": (
        "import logging\ndef f(): logging.getLogger('a').warning('hey')",
        "import unittest\nclass T(unittest.TestCase):\n    def runTest(self):\n"
        "        with self.assertNoLogs('a'): f()\n"
        "assert T().run().wasSuccessful()",
        "pass",
    ),
    "a file of the other user's": (
        "import tempfile\ndef f():\n    number, path = tempfile.mkstemp()\n    return path",
        "from pathlib import Path\nassert Path(f()).read_text() == ''",
        "error",
    ),
    "a builtin that comes back": ("def f(): return max", "assert f() is max", "fail"),
    "a function of the library that comes back": (
        "import textwrap\ndef f(): return textwrap.dedent",
        "import textwrap\nassert f() == textwrap.dedent",
        "fail",
    ),
    "a function that is not another's": (
        "import operator\ndef f(): return operator.add",
        "import operator\nassert f() is not operator.add",
        "pass",
    ),
    "the class of a function": (
        "def f(x): return type(x)",
        "import types\nassert f(lambda: 0) == types.FunctionType",
        "fail",
    ),
    "a match of a class": (
        "from dataclasses import dataclass\n@dataclass\nclass f: x: int",
        "match f(1):\n    case f(x=1): pass\n    case _: assert False",
        "error",
    ),
    "a match of a class, laid out otherwise": (
        "from dataclasses import dataclass\n@dataclass\nclass f: x: int",
        "match f(1):\n    case \\\n        f (x=1): pass\n    case _: assert False",
        "error",
    ),
    "an identity, laid out otherwise": (
        "def f(x): return x",
        "x = (1, 'a')\nassert f(x) is(x)",
        "fail",
    ),
    "the context of an exception": (
        "def f():\n    try: {}['k']\n    except KeyError: raise ValueError",
        "try: f()\nexcept ValueError as e: assert e.__context__ is None",
        "pass",
    ),
    "the context of an exception that is returned": (
        "def f():\n    try:\n        try: 1 / 0\n        finally: raise TypeError\n"
        "    except TypeError as e: return e",
        "assert f().__context__",
        "fail",
    ),
    "a traceback": (
        "def f(): return {}['k']",
        "import traceback\ntry: f()\nexcept KeyError: assert 'in f' in traceback.format_exc()",
        "fail",
    ),
    "the object of an exception": (
        "def f(): return (5).nope",
        "try: f()\nexcept AttributeError as e: assert e.obj is None",
        "pass",
    ),
    "the order of a set": (
        "def f():\n    s = set(range(1000))\n    s -= {*range(1000)} - {1, 8}\n    return s",
        "assert list(f()) == [1, 8]",
        "fail",
    ),
}


@pytest.mark.parametrize(("source", "test", "verdict"), DIFFER.values(), ids=DIFFER)
def test_what_goes_otherwise_in_two_processes_is_a_token(judge, source, test, verdict):
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == (verdict, "token"), reply.stderr


AGREE = {
    "a name that the candidate has and does not use": (
        "def g(x): return 1\ndef f(x): return x",
        "def g(x): return 2\nassert f(g(0)) == 2",
    ),
    "a raised recursion limit": (
        "import sys\nsys.setrecursionlimit(5000)\ndef f(n): return n and 1 + f(n - 1)",
        "assert f(1500) == 1500",
    ),
    "a recursion as deep as in plain execution": (
        "def f(n): return n and 1 + f(n - 1)",
        "assert f(990) == 990",
    ),
    "decimals that the test does without": (
        "from decimal import *\ngetcontext().prec = 50\ndef f(): return str(Decimal(1) / 3)",
        "assert f() == '0.' + '3' * 50",
    ),
    "a match of data": (
        "def f(x): return x",
        "match f((1, 'a')):\n    case (int(n), str(s)): assert (n, s) == (1, 'a')\n"
        "    case _: assert False",
    ),
    "a set in another order, compared": (
        "def f():\n    s = set(range(1000))\n    s -= set(range(9, 1000))\n    return s",
        "assert f() == set(range(9)) and 5 in f()",
    ),
    "an exception that comes back": (
        "def f(g):\n    try: g()\n    except Exception as e: return e",
        "error = KeyError(1)\ndef g(): raise error\nassert f(g) is error and [f(g)] == [error]",
    ),
    "an exception that passes through": (
        "def f(g): return g()",
        "class Odd(Exception): pass\nodd = Odd(1)\ndef g(): raise odd\n"
        "try: f(g)\nexcept Odd as e: assert e is odd and e.args == (1,)",
    ),
    "an exception that is a cause": (
        "def f(g):\n    try: g()\n    except KeyError as e: raise ValueError from e",
        "error = KeyError(1)\ndef g(): raise error\n"
        "try: f(g)\nexcept ValueError as e: assert e.__cause__ is error",
    ),
    "the name in an AttributeError": (
        "def f(x): return x.nope",
        "try: f(1)\nexcept AttributeError as e: assert e.name == 'nope'\nelse: assert 0",
    ),
    "the name in a NameError": (
        "def f(): return nope",
        "try: f()\nexcept NameError as e: assert e.name == 'nope'\nelse: assert 0",
    ),
    "the name and path in an ImportError": (
        "def f(): raise ImportError('odd', name='n', path='p')",
        "try: f()\nexcept ImportError as e: assert (e.name, e.path) == ('n', 'p')\nelse: assert 0",
    ),
    "an exception from None": (
        "def f():\n    try: {}['k']\n    except KeyError: raise ValueError from None",
        "try: f()\nexcept ValueError as e: assert e.__suppress_context__ and not e.__cause__",
    ),
    "two million numbers": (
        "def f(n): return list(range(n))",
        "assert len(f(1500000)) == 1500000",
    ),
    "threads of the candidate's alone": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def f(xs):\n    with ThreadPoolExecutor(4) as pool: return list(pool.map(abs, xs))",
        "assert f([-1, 2]) == [1, 2]",
    ),
}


@pytest.mark.parametrize(("source", "test"), AGREE.values(), ids=AGREE)
def test_what_goes_the_same_in_two_processes_is_split(judge, source, test):
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "split"), reply.stderr


POOL = "from concurrent.futures import ThreadPoolExecutor\n"
THREADS = {
    "of the test's": (
        "def f(n): return n * 2",
        f"{POOL}with ThreadPoolExecutor(8) as pool: found = list(pool.map(f, range(200)))\n"
        "assert found == [n * 2 for n in range(200)]",
    ),
    "of the candidate's": (
        f"{POOL}def f(g, xs):\n"
        "    with ThreadPoolExecutor(4) as pool: return list(pool.map(g, xs))",
        "assert f(lambda x: x * x, range(50)) == [x * x for x in range(50)]",
    ),
    "of the test's, called back": (
        "def f(g, n): return g(n)",
        f"{POOL}with ThreadPoolExecutor(4) as pool:\n"
        "    found = list(pool.map(lambda n: f(lambda x: x + 1, n), range(50)))\n"
        "assert found == list(range(1, 51))",
    ),
    "of asyncio's": (
        "def f(n): return n * 2",
        "import asyncio\nasync def run():\n"
        "    return await asyncio.gather(*[asyncio.to_thread(f, n) for n in range(20)])\n"
        "assert asyncio.run(run()) == [n * 2 for n in range(20)]",
    ),
}


@pytest.mark.parametrize(("source", "test"), THREADS.values(), ids=THREADS)
def test_threads_that_call_across_get_their_own_answers(judge, source, test):
    reply = judge(source, test, entry_point="f")
    assert (reply.status, reply.integrity) == ("pass", "token"), reply.stderr


PRINTS = {
    "when called": "def f(n):\n    print('x' * n)\n    return n",
    "line by line": "def f(n):\n    for i in range(n): print('step', i)\n    return n",
    "when loaded": "print('x' * 100000)\ndef f(n): return n",
    "as an error": "import sys\ndef f(n):\n    print('x' * n, file=sys.stderr)\n    return n",
}


@pytest.mark.parametrize("source", PRINTS.values(), ids=PRINTS)
def test_more_output_than_the_limit_changes_no_verdict(judge, source):
    reply = judge(source, *["assert f(30000) == 30000"] * 4, entry_point="f")
    assert reply.tests == ("pass",) * 4, reply.stderr
    assert (reply.truncated, reply.integrity) == (True, "token")


def test_a_test_may_print_more_than_the_limit(judge):
    test = "import sys\nprint('x' * 100000, file=sys.stderr)\nassert f(1) == 1"
    reply = judge("def f(x): return x", test, entry_point="f")
    assert (reply.status, reply.truncated) == ("pass", True)
