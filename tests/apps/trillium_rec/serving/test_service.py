"""The service, asked over a real socket; its numbers against the harness."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection

import numpy as np
import pytest
from trillium.errors import ConfigError
from trillium_rec.live_catalogue import lock_catalogue, publish
from trillium_rec.metrics import ranks_of, recall
from trillium_rec.served_run import ServedRun
from trillium_rec.serving.app import ServingSettings
from trillium_rec.serving.server import serve_until_told

TOKEN = "a-token-7c1f"


def test_recall_through_the_service_is_the_recall_of_the_harness(service, finished_run):
    run = ServedRun.open(finished_run)
    catalogue, judged = run.data.positive.catalogue, run.data.split.test
    users = range(len(judged.target))
    histories = [[catalogue.ids[i] for i in judged.histories.of(user).tolist()] for user in users]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda h: service.recommend(history=h, k=50), histories))
    rows = {item: row for row, item in enumerate(catalogue.ids)}
    lists = np.full((len(answers), 50), -1)
    for user, answer in enumerate(answers):
        found = [rows[entry["item"]] for entry in answer["items"]]
        lists[user, : len(found)] = found
    online = recall(ranks_of(lists, judged.target), 10).mean()
    offline = json.loads((finished_run / "evaluation.jsonl").read_text().splitlines()[-1])
    assert offline["name"] == "lazy, fused"
    assert online == pytest.approx(offline["recall@10"]["mean"], abs=1e-12)
    assert offline["recall@10"]["mean"] > 0
    _, metrics = service.ask("GET", "/metrics")
    sizes = [line for line in metrics.splitlines() if line.startswith("trillium_rec_batch_size_")]
    passes = next(float(line.split()[1]) for line in sizes if "size_count" in line)
    assert 1 <= passes < len(answers), "no two questions shared a pass"


def test_an_answer_names_items_with_titles_and_counts_what_it_does_not_know(service, finished_run):
    catalogue = ServedRun.open(finished_run).data.positive.catalogue
    known = catalogue.ids[3]
    answer = service.recommend(history=[known, "no-such-item"], k=3)
    assert answer["unknown_items"] == 1
    assert answer["catalogue_revision"] == 0
    assert len(answer["items"]) == 3
    titles = dict(zip(catalogue.ids, catalogue.titles, strict=True))
    assert all(entry["title"] == titles[entry["item"]] for entry in answer["items"])
    assert known not in [entry["item"] for entry in answer["items"]]
    scores = [entry["score"] for entry in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    same = service.recommend(history=[known], k=3)
    assert same["items"] == answer["items"]


def test_a_user_of_the_log_is_known_by_name(service, finished_run):
    run = ServedRun.open(finished_run)
    events, offsets = run.data.positive.events, run.data.positive.offsets()
    history = [run.data.positive.catalogue.ids[i] for i in events.item[: offsets[1]].tolist()]
    by_name = service.recommend(user=run.data.positive.users[0])
    assert by_name["items"] == service.recommend(history=history)["items"]
    assert len(by_name["items"]) == 10


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "body: is not JSON"),
        (b"[" * 100_000, "body: is not JSON"),
        (b"\xff", "body: is not JSON"),
        ([1], "body: is [1] (needs an object)"),
        ({}, "body: needs user or history, one of the two"),
        ({"user": "a", "history": []}, "body: needs user or history, one of the two"),
        ({"history": [], "K": 3}, "body: has the key 'K'; known are user, history and k"),
        ({"history": "x"}, 'history: is "x" (needs a list of item ids, oldest first)'),
        ({"history": [1]}, "history: holds 1 (needs item ids as texts)"),
        ({"history": ["x"] * 10_001}, "history: holds 10001 items (at most 10000); send fewer"),
        ({"history": [], "k": 51}, "k: is 51 (needs a whole number from 1 to 50)"),
        ({"history": [], "k": True}, "k: is true (needs a whole number from 1 to 50)"),
        ({"user": 7}, "user: is 7 (needs a text); put it in quotes"),
        ({"user": "nobody"}, "user 'nobody': is not in the log of this run"),
    ],
)
def test_a_bad_question_is_answered_by_one_sentence(service, body, sentence):
    status, answer = service.ask("POST", "/recommend", body)
    assert status == 422
    assert answer["error"].startswith(sentence)
    assert "\n" not in answer["error"]


def test_health_says_what_is_served(service):
    status, state = service.ask("GET", "/healthz")
    assert status == 200
    assert state["recommender"] == "lazy, fused"
    assert (state["items"], state["active_items"]) == (200, 200)
    assert state["reload_error"] is None


def test_a_body_of_more_than_a_mebibyte_is_refused_before_it_is_sent(service):
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=60)) as connection:
        connection.putrequest("POST", "/recommend")
        connection.putheader("Content-Length", str((1 << 20) + 1))
        connection.endheaders()
        reply = connection.getresponse()
        assert reply.status == 413
        assert b"1048576 bytes" in reply.read()


def test_a_changed_catalogue_is_taken_up_while_questions_are_answered(start, own_run):
    service = start(own_run, "--watch-s", "0.1")
    first = service.recommend(history=[], k=1)["items"][0]["item"]
    failures, seen, stop = [], set(), threading.Event()

    def go_on():
        while not stop.is_set():
            status, answer = service.ask("POST", "/recommend", {"history": [], "k": 1})
            if status != 200:
                failures.append(answer)
                continue
            seen.add((answer["catalogue_revision"], answer["items"][0]["item"] == first))

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        with lock_catalogue(own_run):
            publish(own_run, ServedRun.open(own_run).catalogue().with_state([first], "hidden"))
        while not failures and not any(revision == 1 for revision, _ in list(seen)):
            stop.wait(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert seen == {(0, True), (1, False)}
    current = own_run / "catalogue" / "current.json"
    current.write_text('{"revision": 7}')
    status, answer = service.ask("POST", "/reload")
    assert status == 409
    assert "revision-7" in answer["error"]
    assert service.recommend(history=[])["catalogue_revision"] == 1, "the old one stays"
    assert "revision-7" in service.ask("GET", "/healthz")[1]["reload_error"]
    assert service.stop() == 0


def test_with_a_token_nobody_else_is_let_in(start, finished_run):
    service = start(finished_run, env={"TRILLIUM_REC_TOKEN": TOKEN})
    status, answer = service.ask("POST", "/recommend", {"history": []})
    assert status == 401
    assert "Authorization: Bearer TOKEN" in answer["error"]
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert service.ask("POST", "/recommend", {"history": []}, **right)[0] == 200
    assert service.ask("GET", "/healthz")[0] == 200
    assert service.ask("GET", "/metrics")[0] == 401


def test_other_machines_are_not_let_in_without_a_token(finished_run):
    with pytest.raises(ConfigError, match=r"--host 0\.0\.0\.0 is reachable from other machines"):
        serve_until_told(
            ServedRun.open(finished_run),
            ServingSettings(),
            host="0.0.0.0",
            port=0,
            no_token=False,
            n_threads=1,
        )
