"""The cluster backend on two nodes of one machine: real Ray processes, one node killed."""

import psutil
import pytest
from trillium_sandbox import Request, RequestError, SandboxError

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

from trillium_sandbox.cluster import ClusterBackend  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Ray drops the handles of processes that it has ended.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SLOW = b"import time\ntime.sleep(0.01)\nprint('done')"


@pytest.fixture(scope="module")
def cluster(ray_head):
    """Return a cluster of a head node alone."""
    return ray_head


@pytest.fixture
def second_node(cluster):
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node, allow_graceful=False)


def scripts(n_requests):
    return [Request(str(number), "script", SLOW) for number in range(n_requests)]


def hosts():
    """Return the hosts below this process; what ends meanwhile has no command line any more."""
    own = {process.pid for process in psutil.Process().children(recursive=True)}
    listed = [p for p in psutil.process_iter(["cmdline"]) if p.pid in own]
    return [p for p in listed if "".join(p.info["cmdline"] or ()).startswith("ray::Host")]


def test_a_killed_node_loses_no_request(cluster, second_node):
    requests = scripts(600)
    with ClusterBackend(n_workers=1, batch_programs=32) as backend:
        assert (backend.n_hosts, backend.level) == (2, 2)
        replies = []
        for reply in backend.run(requests):
            replies.append(reply)
            if len(replies) == 40:
                cluster.remove_node(second_node, allow_graceful=False)
        assert (backend.n_lost, backend.n_hosts) == (1, 1)
    assert [reply.id for reply in replies] == [request.id for request in requests]
    assert {(reply.status, reply.stdout) for reply in replies} == {("ok", b"done\n")}


def test_a_killed_host_is_replaced_on_its_node(cluster):
    requests = scripts(200)
    with ClusterBackend(n_workers=1, batch_programs=16) as backend:
        (first,) = hosts()
        replies = []
        for reply in backend.run(requests):
            replies.append(reply)
            if len(replies) == 20:
                first.kill()
        assert (backend.n_lost, backend.n_hosts) == (1, 1)
        assert [process.pid for process in hosts()] != [first.pid]
    assert [reply.id for reply in replies] == [request.id for request in requests]
    assert {reply.status for reply in replies} == {"ok"}


def test_verdicts_come_as_from_any_backend(cluster):
    tests = ("assert f(1) == 2", "assert f(2) == 3")
    sources = (b"def f(x): return x + 1", b"def f(x): return 2", b"def f(x): return 1 / 0")
    requests = [
        Request(str(n), "function", sources[n % 3], tests, "f", count_opcodes=True)
        for n in range(9)
    ]
    with ClusterBackend(n_workers=1, batch_programs=2) as backend:
        replies = list(backend.run(iter(requests)))
        assert list(backend.run([])) == []
    assert [reply.status for reply in replies] == ["pass", "fail", "error"] * 3
    assert {reply.integrity for reply in replies} == {"split"}
    assert len({reply.opcode_count for reply in replies[::3]}) == 1


def test_an_abandoned_run_leaves_the_backend_in_order(cluster):
    with ClusterBackend(n_workers=1, batch_programs=4) as backend:
        replies = backend.run(scripts(100))
        next(replies)
        replies.close()
        (reply,) = backend.run([Request("next", "script", b"pass")])
    assert (reply.id, reply.status) == ("next", "ok")


def test_a_node_that_cannot_hold_the_level_is_refused(cluster):
    with pytest.raises(SandboxError, match=r"^node \w{8}: sandbox: level 5 is needed"):
        ClusterBackend(min_level=5)
    assert psutil.wait_procs(hosts(), timeout=20)[1] == []


def test_mistakes_of_the_caller_are_named(cluster):
    with pytest.raises(RequestError, match="batch_programs = 0"):
        ClusterBackend(batch_programs=0)


def test_without_ray_connected_the_backend_says_so():
    ray.shutdown()
    with pytest.raises(SandboxError, match=r"call ray.init\(address=...\) first"):
        ClusterBackend()
