"""Every page of the documentation: its commands run, its code runs, its links and API resolve."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location(
    "docs_pages", Path(__file__).with_name("docs_pages.py")
)
pages = importlib.util.module_from_spec(_spec)
sys.modules["docs_pages"] = pages
_spec.loader.exec_module(pages)

ALL = sorted(pages.PAGES.rglob("*.md"))
WITH_COMMANDS = [path for path in ALL if "```console" in path.read_text()]
WITH_CODE = [path for path in ALL if "```python" in path.read_text()]


def name(path):
    return path.relative_to(pages.PAGES).as_posix()


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name)
def test_the_commands_of_a_page_print_what_it_shows(path, tmp_path):
    commands = pages.read_commands(path.read_text())
    printed = pages.run_commands(commands, tmp_path)
    problems = [
        problem
        for command, found in zip(commands, printed, strict=True)
        for problem in pages.differences(command, found)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", WITH_CODE, ids=name)
def test_the_code_of_a_page_runs(path):
    for block in re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.M | re.S):
        exec(compile(block, str(path), "exec"), {"__name__": "page"})


def test_a_line_that_is_not_printed_and_another_exit_code_are_seen(tmp_path):
    page = "```console\n$ echo 3 of 12\n4 of 7\n$ echo now\nthen\n$ false\n```\n"
    commands = pages.read_commands(page)
    printed = pages.run_commands(commands, tmp_path)
    found = [pages.differences(*each) for each in zip(commands, printed, strict=True)]
    assert [len(each) for each in found] == [0, 1, 1]


def test_three_dots_inside_a_line_stand_for_what_may_differ(tmp_path):
    page = "```console\n$ echo '2 of 3 (wrong 1); go on'\n2 of 3 (...); go on\n```\n"
    commands = pages.read_commands(page)
    printed = pages.run_commands(commands, tmp_path)
    assert pages.differences(commands[0], printed[0]) == []
    assert pages.write_outputs(page, printed) == page
    other = "```console\n$ echo '2 of 3 (wrong 1); stop'\n2 of 3 (...); go on\n```\n"
    commands = pages.read_commands(other)
    printed = pages.run_commands(commands, tmp_path)
    assert len(pages.differences(commands[0], printed[0])) == 1


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    config = pages.PAGES.parent / "mkdocs.yml"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(config)]
    done = subprocess.run([*command, "-d", str(tmp_path / "site")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "objectives" / "index.html").read_text()
    assert "trillium.objectives.pairwise.dpo" in page
