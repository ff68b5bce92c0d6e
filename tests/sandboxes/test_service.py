"""The service, asked as any HTTP client would, over a real socket."""

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trillium_sandbox import RequestError
from trillium_sandbox.service.app import ServiceSettings
from trillium_sandbox.service.serving import serve_until_told

SLEEP = "import time; time.sleep(60)"
HANG = "while True: pass"
TOKEN = "a-token-7c1f"


def script(name="a", source="print(1)", **fields):
    return {"id": name, "mode": "script", "source": source} | fields


@pytest.fixture(scope="module")
def service(start_service):
    return start_service("--max-queue", "8")


def test_a_request_is_answered_by_its_reply(service):
    status, headers, body = service.ask("POST", "/run", script(source="print(6 * 7)"))
    assert (status, headers["content-type"]) == (200, "application/json")
    reply = json.loads(body)
    assert (reply["id"], reply["status"], reply["stdout"], reply["isolation"]) == (
        "a",
        "ok",
        "42\n",
        2,
    )


def test_a_list_is_answered_by_a_list_and_lines_by_lines_in_order(service):
    rows = [script(f"r{n}", f"import time\ntime.sleep({0.1 * (n == 0)})") for n in range(5)]
    expected = [f"r{n}" for n in range(5)]
    status, _, body = service.ask("POST", "/run_batch", rows)
    assert status == 200
    assert [reply["id"] for reply in json.loads(body)] == expected
    lines = b"\n".join(json.dumps(row).encode() for row in rows) + b"\n\n"
    status, headers, body = service.ask("POST", "/run_batch", lines)
    assert (status, headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line)["id"] for line in body.splitlines()] == expected


def test_replies_come_while_others_still_run(service):
    rows = [script("quick"), script("slow", HANG, limits={"wall_s": 2, "cpu_s": 2})]
    connection = service.connect()
    body = "\n".join(map(json.dumps, rows)).encode()
    connection.request("POST", "/run_batch", body)
    response = connection.getresponse()
    assert json.loads(response.readline())["status"] == "ok"
    status, _, health = service.ask("GET", "/healthz")
    assert (status, json.loads(health)["open_programs"]) == (200, 1)
    assert json.loads(response.readline())["status"] == "timeout"
    connection.close()


@pytest.mark.parametrize("path", ["/run", "/run_batch"])
def test_an_id_that_is_half_a_surrogate_pair_comes_back(service, path):
    status, _, answer = service.ask("POST", path, json.dumps(script(id="\ud800")).encode())
    assert status == 200
    assert json.loads(answer)["id"] == "\ud800"


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/run", b"{", "is no JSON: Expecting property name"),
        ("/run", b"\xff", "is no UTF-8 text"),
        ("/run", b"[]", "not a JSON object"),
        ("/run", b"[" * 100_000, "is nested too deeply"),
        ("/run", script(mode="x"), "mode = 'x' (script, function or stdio)"),
        ("/run_batch", [script(), script(id=None)], "body[1]: id = None (a non-empty text)"),
        ("/run_batch", b'{"id": 1}\n{}', "body:1: mode = None"),
        ("/run_batch", b"", "body: holds no request"),
        ("/run_batch", b"[", "is no JSON"),
        ("/run", script(limits={"wall_s": 61}), "this service allows 60.0"),
        ("/run", script(limits={"memory_bytes": 5 << 30}), "(this service allows 4294967296)"),
        ("/run", script(limits={"disk_bytes": 5 << 30}), "(this service allows 4294967296)"),
        ("/run_batch", b"1\n" * 5_000_000, "body:20: not a JSON object"),
    ],
)
def test_a_bad_body_is_refused_in_one_sentence(service, path, body, sentence):
    status, _, answer = service.ask("POST", path, body)
    assert status == 422
    assert sentence in json.loads(answer)["error"]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "mode", "source", "limits", "code", "language", "files"]), inner
        )
    ),
)


@pytest.mark.property
@given(
    st.sampled_from(["/run", "/run_batch", "/run_code"]),
    st.binary(max_size=40) | ANYTHING.map(json.dumps).map(str.encode),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_body_is_answered_or_refused_in_json(service, path, body):
    status, _, answer = service.ask("POST", path, body)
    assert status in (200, 422)
    assert json.loads(answer)


def test_other_paths_and_methods_are_refused(service):
    assert service.ask("GET", "/nothing")[0] == 404
    assert service.ask("GET", "/run")[0] == 405


def test_a_batch_beyond_the_queue_is_refused_for_good_and_a_full_queue_for_now(service):
    status, _, answer = service.ask("POST", "/run_batch", [script()] * 9)
    assert (status, json.loads(answer)["error"]) == (
        413,
        "more than 8 programs; send them in parts",
    )
    busy = service.connect()
    hung = script(source=HANG, limits={"wall_s": 1, "cpu_s": 1})
    busy.request("POST", "/run_batch", json.dumps([hung] * 4 + [script()] * 4).encode())
    _wait_for(service, lambda n_open: n_open == 8)
    status, headers, answer = service.ask("POST", "/run", script())
    assert (status, headers["retry-after"]) == (429, "1")
    assert "the queue of 8 programs is full" in json.loads(answer)["error"]
    busy.close()


@pytest.mark.timeout(30)  # left alone, the programs would run for a minute
def test_a_client_that_leaves_has_its_work_forgotten(service):
    for path in ("/run_batch", "/run", "/run_code"):
        connection = service.connect()
        hung = script(source=HANG, limits={"wall_s": 60, "cpu_s": 60})
        body = hung if path == "/run" else [hung] * 2
        if path == "/run_code":
            body = {"code": HANG, "language": "python", "run_timeout": 60}
        connection.request("POST", path, json.dumps(body).encode())
        _wait_for(service, lambda n_open: n_open > 0)
        connection.close()
        _wait_for(service, lambda n_open: n_open == 0)


def test_bodies_are_bounded_before_they_are_read(service):
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(b"POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 67108865\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413 ")
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.sendall(b"POST /run HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        answers = []
        reader = threading.Thread(target=lambda: answers.append(raw.recv(100)))
        reader.start()
        with pytest.raises(ConnectionError):
            _flood(raw)
        reader.join()
        assert answers[0].startswith(b"HTTP/1.1 413 ")


def test_the_metrics_count_programs_requests_and_state(service):
    before = _metrics(service)
    service.ask("POST", "/run_batch", [script(), script(source="1 / 0")])
    service.ask("GET", "/invented/by/a/client")
    after = _metrics(service)

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown('trillium_sandbox_programs_total{status="ok"}') == 1
    assert grown('trillium_sandbox_programs_total{status="error"}') == 1
    assert grown('trillium_sandbox_requests_total{code="200",route="/run_batch"}') == 1
    assert grown('trillium_sandbox_requests_total{code="404",route="other"}') == 1
    assert grown('trillium_sandbox_request_seconds_count{route="/run_batch"}') == 1
    assert after["trillium_sandbox_up"] == 1
    assert after["trillium_sandbox_open_programs"] == 0


def test_a_service_with_a_token_a_cache_and_little_time(start_service, tmp_path):
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN + "\n")
    service = start_service("--token-file", str(token_file), "--cache", str(tmp_path / "cache"))
    assert service.ask("GET", "/healthz")[0] == 200
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        status, headers, answer = service.ask("POST", "/run", script(), **header)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "send `Authorization: Bearer TOKEN`" in json.loads(answer)["error"]
        assert service.ask("GET", "/metrics", **header)[0] == 401
    known = {"Authorization": f"Bearer {TOKEN}"}
    clock = script(source="import time\nprint(time.time_ns())")
    first, again = (json.loads(service.ask("POST", "/run", clock, **known)[2]) for _ in range(2))
    assert first == again
    lookups = _metrics(service, **known)
    assert lookups['trillium_sandbox_cache_lookups_total{outcome="hit"}'] == 1
    assert lookups['trillium_sandbox_cache_lookups_total{outcome="miss"}'] == 1

    # Told to stop, it answers what is under way and takes its workers with it.
    workers = _children(service.process.pid)
    assert len(workers) == 2
    connection = service.connect()
    slow = script(source="import time\ntime.sleep(0.5)\nprint('done')")
    connection.request("POST", "/run", json.dumps(slow).encode(), known)
    _wait_for(service, lambda n_open: n_open == 1)
    service.process.terminate()
    assert json.loads(connection.getresponse().read())["stdout"] == "done\n"
    connection.close()
    assert service.stop() == (0, "")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


@pytest.mark.timeout(30)  # left alone, the program would run for a minute
def test_a_killed_service_takes_its_programs_with_it(start_service):
    service = start_service()
    connection = service.connect()
    hung = script(source=HANG, limits={"wall_s": 60, "cpu_s": 60})
    connection.request("POST", "/run", json.dumps(hung).encode())
    _wait_for(service, lambda n_open: n_open == 1)
    found, processes = [service.process.pid], []
    while found:
        found = [child for process in found for child in _children(process)]
        processes += found
    assert len(processes) >= 4  # launchers and zygotes
    service.stop(signal.SIGKILL)
    while any(Path(f"/proc/{process}").exists() for process in processes):
        os.sched_yield()
    connection.close()


def test_other_machines_come_in_only_with_a_token_or_in_so_many_words():
    def never():
        raise AssertionError("nothing may be opened")

    with pytest.raises(RequestError, match=r"--host 0\.0\.0\.0 is reachable .* add --no-token"):
        serve_until_told(
            never,
            ServiceSettings("embedded"),
            address=("0.0.0.0", 0),
            no_token=False,
            cache_path=None,
            max_queue=8,
        )


def run_code(service, **fields):
    status, _, body = service.ask("POST", "/run_code", {"language": "python"} | fields)
    return status, json.loads(body)


def test_run_code_answers_in_sandboxfusions_shape(service):
    status, answer = run_code(
        service,
        code="print(input())\nprint(open('d/x.txt').read(), __name__)",
        stdin="in",
        files={"d/x.txt": "aGVsbG8=", "ignored": None},
        compile_timeout=10,
        run_timeout=5,
        fetch_files=[],
        memory_limit_MB=-1,
    )
    assert status == 200
    assert 0 < answer["run_result"].pop("execution_time") < 5
    assert answer == {
        "status": "Success",
        "message": "",
        "compile_result": None,
        "run_result": {
            "status": "Finished",
            "return_code": 0,
            "stdout": "in\nhello __main__\n",
            "stderr": "",
        },
        "executor_pod_name": None,
        "files": {},
    }


@pytest.mark.parametrize(
    ("fields", "status", "code", "message"),
    [
        ({"code": "1 / 0"}, "Finished", 1, ""),
        ({"code": "raise SystemExit(3)"}, "Finished", 3, ""),
        ({"code": "print('x' * (2 << 20))"}, "Finished", 1, "output_bytes"),
        ({"code": "bytearray(1 << 29)", "memory_limit_MB": 64}, "Finished", 1, "memory_bytes"),
        ({"code": SLEEP, "run_timeout": 0.2}, "TimeLimitExceeded", None, "wall_s"),
    ],
)
def test_run_code_tells_failures_apart(service, fields, status, code, message):
    _, answer = run_code(service, **fields)
    assert answer["status"] == "Failed"
    assert message in answer["message"]
    assert (answer["run_result"]["status"], answer["run_result"]["return_code"]) == (status, code)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"language": "cpp"}, "language = 'cpp' (this sandbox runs python)"),
        ({"fetch_files": ["a"]}, "no file is sent back"),
        ({"files": {"../a": ""}}, "outside the work folder"),
        ({"files": {"/a": ""}}, "outside the work folder"),
        ({"files": {"a": "%"}}, "is not base64"),
        ({"run_timeout": 1e9}, "limits.wall_s = 1000000000.0"),
        ({"run_timeout": 100}, "this service allows 60.0"),
        ({"memory_limit_MB": 1 << 50}, "limits.memory_bytes"),
    ],
)
def test_run_code_refuses_in_its_own_shape(service, fields, sentence):
    status, answer = run_code(service, **{"code": "print(1)"} | fields)
    assert (status, answer["status"], answer["run_result"]) == (200, "SandboxError", None)
    assert sentence in answer["message"]


def test_run_code_names_a_wrong_field_as_its_own_server_would(service):
    status, answer = run_code(service, code=7)
    assert status == 422
    assert [(problem["loc"], problem["type"]) for problem in answer["detail"]] == [
        (["code"], "string_type")
    ]


def _flood(connection):
    while True:
        connection.sendall(b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n")


def _wait_for(service, is_so):
    while not is_so(json.loads(service.ask("GET", "/healthz")[2])["open_programs"]):
        os.sched_yield()


def _metrics(service, **headers):
    text = service.ask("GET", "/metrics", **headers)[2].decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: float(number) for name, _, number in lines}


def _children(process):
    path = Path(f"/proc/{process}/task")
    return [int(c) for task in path.iterdir() for c in (task / "children").read_text().split()]
