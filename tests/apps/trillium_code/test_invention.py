import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from trillium.config import find_run_file, load_config
from trillium.errors import BackendError
from trillium.policies.tiny import tiny_policy, tiny_tokenizer
from trillium_code.invention import InventionConfig, invent_tasks
from trillium_code.invention_prompts import (
    concept_prompt,
    parse_concepts,
    parse_task,
    read_concept_answer,
    read_task_answer,
    task_prompt,
)
from trillium_code.task_files import read_tasks
from trillium_code.tasks import CodeTask

GOOD = (
    ' count_vowels(text: str) -> int:\n    """Return the number of vowels in the given text."""\n'
)
# What a model might write: two whole tasks, one that repeats, one near an evaluation task, junk.
ANSWERS = (
    GOOD,
    GOOD,
    ' vowels(word: str) -> int:\n    """Return the number of vowels in the given text, please."""',
    ' biggest(a: int, b: int) -> int:\n    """Return the larger of the two numbers."""\n',
    ' squares(n: int) -> list[int]:\n    """Return the squares of all numbers below n."""\n',
    " half(n: int) -> int:\n    return n // 2\n",
    ' broken(n:\n    """Return something or other, whatever."""\n',
    ' nothing():\n    """Return nothing at all, every time."""\n',
    ' brief(n):\n    """Do it."""\n',
    ' show(n: int) -> None:\n    """Print the number with its square beside it."""\n',
    ' total(frame: pd.DataFrame) -> int:\n    """Return the sum of all cells in it."""\n',
)


@contextmanager
def server(answer):
    """Serve OpenAI's completions protocol; `answer(n)` is the text of the n-th completion."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(request)
            if self.path.endswith("/chat/completions"):
                said = {"content": answer(request, len(asked))}  # one, whatever `n` says
                choices = [{"index": 0, "message": said, "finish_reason": "stop"}]
            else:
                choices = [
                    {"index": i, "text": answer(request, i), "finish_reason": "stop"}
                    for i in range(len(request["prompt"]) * request["n"])
                ]
            body = json.dumps({"choices": choices}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}/v1", asked
        found.shutdown()
        thread.join()


@pytest.fixture
def model(tmp_path):
    tiny_policy(seed=1).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def config(folder, model, url, **changes):
    given = [
        f"output={folder}",
        f"policy.base={model}",
        "n_snippets=3",
        f"tasks.n_samples={len(ANSWERS)}",
        f"server={{url: {url}, model: m, returns_token_ids: false, n_retries: 0}}",
        *(f"{key}={value}" for key, value in changes.items()),
    ]
    path = find_run_file("invent", package="trillium_code", command="invent")
    return load_config(InventionConfig, path, given)


def answer(request, place):
    """Name concepts to the first kind of request, and write tasks to the second."""
    is_concepts = request["stop"] == ["\n"]
    return " Loops, strings\n" if is_concepts else ANSWERS[place % len(ANSWERS)]


def test_tasks_are_invented_kept_apart_and_counted(tmp_path, model):
    with server(answer) as (url, asked):
        found = invent_tasks(config(tmp_path / "run", model, url))
        n_asked = len(asked)
        again = invent_tasks(config(tmp_path / "run", model, url))
    assert (again, len(asked)) == (found, n_asked)
    tasks = read_tasks(str(found.path))
    assert [task.entry_point for task in tasks] == ["count_vowels", "squares"]
    assert tasks[0].header.startswith("def count_vowels(text: str) -> int:")
    assert tasks[0].tests == ()
    assert found.counts == {
        "snippets": 3,
        "with_concepts": 3,
        "invented": 33,
        "unfinished": 3,
        "unparsable": 3,
        "no_arguments": 3,
        "too_short": 3,
        "no_result": 3,
        "unknown_types": 3,
        "repeats": 12,
        "near_evaluation_tasks": 1,
        "kept": 2,
    }


def chat_answer(request, _):
    """Answer in whole sentences with a fence, as chat models do."""
    (message,) = request["messages"]
    if "concepts" in message["content"]:
        return "Sure!\nConcepts: Loops, strings.\n" if request["seed"] % 2 else "loops, **Strings**"
    task = ANSWERS[request["seed"] % 1000 % len(ANSWERS)]
    return f"Here is one.\n\n```python\nfrom typing import List\n\ndef{task}```\nHave fun!"


def test_a_server_that_only_chats_invents_the_same_tasks(tmp_path, model):
    with server(chat_answer) as (url, asked):
        given = config(tmp_path / "run", model, url, **{"server.endpoint": "chat"})
        found = invent_tasks(given)
        again = invent_tasks(given)
    assert again == found
    assert len(asked) == 3 + 3 * len(ANSWERS)
    assert {"messages", "seed"} <= set(asked[0])
    assert "stop" not in asked[0]
    assert [task.entry_point for task in read_tasks(str(found.path))] == ["count_vowels", "squares"]
    assert found.counts["invented"] == 33
    assert found.counts["with_concepts"] == 3


def test_a_chat_without_a_function_gives_nothing():
    assert read_task_answer("I would rather not define anything.") == ""
    assert read_task_answer("```python\ndef f(x): pass") == " f(x): pass"
    assert read_concept_answer("\n- Concepts: a, b\nc") == " a, b"


def test_a_server_that_does_not_answer_is_told_in_one_sentence(tmp_path, model):
    with pytest.raises(BackendError, match=r"http://127\.0\.0\.1:9/v1: .* check that it runs"):
        invent_tasks(config(tmp_path / "run", model, "http://127.0.0.1:9/v1"))


def test_the_policy_itself_can_write_and_may_find_nothing(tmp_path, model):
    given = config(tmp_path / "run", model, "http://127.0.0.1:9/v1").model_copy(
        update={"server": None}
    )
    found = invent_tasks(given)
    assert found.counts["snippets"] == 3
    assert found.counts["kept"] == len(found.path.read_text().splitlines())


def test_concepts_are_read_from_the_first_line():
    assert parse_concepts(" Loops,  strings, loops, *lists*.\nmore") == (
        "loops",
        "strings",
        "lists",
    )
    assert parse_concepts("123, " + "x" * 50) == ()


def test_a_task_is_a_signature_and_a_docstring_that_says_something():
    task = parse_task(GOOD + "\n    return 1", id="a")
    assert isinstance(task, CodeTask)
    assert task.statement == "Return the number of vowels in the given text."
    reasons = [parse_task(answer, id="a") for answer in ANSWERS[5:]]
    assert reasons == [
        *("unfinished", "unparsable", "no_arguments", "too_short"),
        *("no_result", "unknown_types"),
    ]


def test_names_of_typing_are_imported_in_front():
    answer = ' pick(items: List[int]) -> Optional[int]:\n    """Return the first item, if any."""'
    task = parse_task(answer, id="a")
    assert task.header.startswith("from typing import List, Optional\n\n\ndef pick(")
    assert task.entry_point == "pick"


def test_prompts_end_where_the_answer_begins():
    assert concept_prompt("def f():\n    pass\n").endswith("```\nConcepts:")
    assert task_prompt(("loops", "strings")).endswith("# Concepts: loops, strings\ndef")
