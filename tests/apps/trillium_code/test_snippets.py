import json

import pytest
from trillium.errors import DataError
from trillium_code.snippets import draw_snippets, functions_in

CODE = '''
import os

def short(): return 1


class Box:
    def open(self, name):
        """Open it."""
        path = os.path.join("/", name)
        return path
'''


def test_functions_are_cut_out_and_moved_to_the_left():
    (snippet,) = functions_in(CODE, "box.py")
    assert snippet.id == "box.py:8"
    assert snippet.code.startswith('def open(self, name):\n    """Open it.')
    assert functions_in("def broken(:\n", "x.py") == []


def test_the_seed_draws_from_files_of_a_folder(tmp_path):
    for number in range(9):
        body = f"def f{number}(x):\n    y = x\n    z = y\n    return z\n"
        (tmp_path / f"m{number}.py").write_text(body)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/t.py").write_text("def t(x):\n    y = x\n    z = y\n    return z\n")
    first = draw_snippets(str(tmp_path), 4, seed=1)
    assert first == draw_snippets(str(tmp_path), 4, seed=1)
    assert first != draw_snippets(str(tmp_path), 4, seed=2)
    assert len(draw_snippets(str(tmp_path), 99, seed=0)) == 9


def test_python_itself_is_a_source():
    snippets = draw_snippets("stdlib", 5, seed=0)
    assert len(snippets) == 5
    assert all("def " in snippet.code for snippet in snippets)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_function_behind_other_separators_is_cut_out_whole(line_end):
    code = "# a\n\x0c\ndef f(x):\n    a = 'b\u2028c'\n    x += a\n    return x\n"
    (snippet,) = functions_in(code.replace("\n", line_end), "f.py")
    assert (snippet.id, snippet.code) == ("f.py:3", code[6:])


def test_json_lines_end_at_line_breaks_alone(tmp_path):
    path = tmp_path / "code.jsonl"
    code = 'def f(a):\n    """x\u2028y"""\n    b = a\n    return b\n'
    rows = [json.dumps({"code": code}, ensure_ascii=False)] * 2
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    found = draw_snippets(str(path), 3, seed=0)
    assert {(one.id, one.code) for one in found} == {
        ("code.jsonl:1:1", code),
        ("code.jsonl:2:1", code),
    }


def test_json_lines_hold_code_in_a_field(tmp_path):
    path = tmp_path / "code.jsonl"
    path.write_text('{"content": "def f(x):\\n    y = x\\n    z = y\\n    return z\\n"}\n')
    (snippet,) = draw_snippets(str(path), 3, seed=0)
    assert snippet.id == "code.jsonl:1:1"
    path.write_text('{"text": 1}\n')
    with pytest.raises(DataError, match=r"code\.jsonl:1: holds no code"):
        draw_snippets(str(path), 3, seed=0)


def test_sources_without_a_function_are_refused(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(DataError, match="holds no function of 4 to 30 lines"):
        draw_snippets(str(tmp_path), 3, seed=0)
    with pytest.raises(DataError, match=r"nowhere\.py: cannot be read"):
        draw_snippets(str(tmp_path / "nowhere.py"), 3, seed=0)
