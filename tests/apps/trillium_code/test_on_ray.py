"""Sampling and execution on two nodes of a real Ray cluster, against one process; a lost actor."""

import psutil
import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed (the extra `ray`)")

from trillium.config import load_config  # noqa: E402
from trillium.errors import BackendError, ConfigError  # noqa: E402
from trillium.generation import SamplingConfig, generate_batches  # noqa: E402
from trillium.generation.config import RayConfig  # noqa: E402
from trillium.generation.engines import TransformersEngine  # noqa: E402
from trillium.generation.on_ray import RayEngine, connected  # noqa: E402
from trillium.policies.adapters import adapter_parameters, save_adapter  # noqa: E402
from trillium.policies.config import LoraSettings, PolicyConfig  # noqa: E402
from trillium.policies.run_policy import RunPolicy  # noqa: E402
from trillium.policies.tiny import tiny_policy, tiny_tokenizer  # noqa: E402
from trillium.runs import Run  # noqa: E402
from trillium_code.config import CodeConfig  # noqa: E402
from trillium_code.judging import matrix_stage  # noqa: E402
from trillium_code.opening import open_sandbox, opened_cluster  # noqa: E402
from trillium_code.records import Sample, TaskSamples  # noqa: E402
from trillium_code.tasks import CodeTask  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Ray drops the handles of processes that it has ended.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
SAMPLING = SamplingConfig(temperature=1.0, top_p=1.0, max_new_tokens=12)
PROMPTS = [(number, 20, 30) for number in range(5, 21)]


@pytest.fixture(scope="module")
def cluster(ray_head):
    """Return a cluster of two nodes."""
    ray_head.add_node(num_cpus=1, object_store_memory=80 << 20)
    return ray_head


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    tiny_policy(seed=3).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    lora = LoraSettings(r=4, alpha=8)
    config = PolicyConfig(base=str(folder / "model"), dtype="float32", lora=lora)
    loaded = RunPolicy(config, seed=0)
    for values in adapter_parameters(loaded.loaded.model, "default").values():
        values.data += 0.3
    save_adapter(loaded.loaded.model, folder / "adapter")
    return RunPolicy(config, seed=0), folder / "adapter"


def drawn(generator):
    plan = generator.plan(PROMPTS, n_samples=2, seed=7)
    return plan, generate_batches(generator, plan, SAMPLING)


class Taken(tuple):
    """Batches that count how many of them have been taken."""

    n_taken = 0

    def __iter__(self):
        for batch in super().__iter__():
            self.n_taken += 1
            yield batch


def samplers():
    """Return the actors below this process; what ends meanwhile has no command line any more."""
    own = {process.pid for process in psutil.Process().children(recursive=True)}
    listed = [p for p in psutil.process_iter(["cmdline"]) if p.pid in own]
    return [p for p in listed if "".join(p.info["cmdline"] or ()).startswith("ray::Sampler")]


def test_actors_draw_what_one_process_draws_even_when_one_is_killed(cluster, policy):
    policy, adapter = policy
    here = TransformersEngine(policy, max_rows=4)
    there = RayEngine(RayConfig(n_samplers=2), policy, max_rows=4)
    _, expected = drawn(here.start())
    plan = Taken(there.start().plan(PROMPTS, n_samples=2, seed=7))
    found = generate_batches(there.start(), plan, SAMPLING)
    first = next(found)
    assert plan.n_taken == 5  # two for each actor, and the one that waits for room
    assert ray.available_resources().get("CPU", 0) == 0  # one actor on each node of one processor
    samplers()[0].kill()
    assert [first, *found] == list(expected)
    assert len(plan) == 8
    there.close()
    alone = RayEngine(RayConfig(n_samplers=1), policy, max_rows=4)
    assert list(drawn(alone.trained(adapter))[1]) == list(drawn(here.trained(adapter))[1])
    alone.close()
    assert psutil.wait_procs(samplers(), timeout=20)[1] == []


def test_more_actors_than_the_cluster_has_room_for_are_refused(cluster, policy):
    with pytest.raises(ConfigError, match=r"ray\.n_samplers=3: needs 3 CPU \(the cluster has 2\)"):
        RayEngine(RayConfig(n_samplers=3), policy[0], max_rows=4).start()


def test_a_matrix_from_the_cluster_is_the_one_from_here(cluster, tmp_path):
    task = CodeTask("t/inc", "inc", "def inc(n: int) -> int:\n", "")
    bodies = ("n + 1", "2", "n - 1", "n +")
    programs = [
        TaskSamples("t/inc", (1,), tuple(Sample((), f"\n    return {b}", "stop") for b in bodies))
    ]
    lines = "1) == 2\nassert inc(5) == 6\nassert inc(1) == 0"
    tests = [TaskSamples("t/inc", (1,), (Sample((), lines, "stop"),))]
    asked = ["sandbox={wall_s: 2.0, n_workers: 1}"]
    local = load_config(CodeConfig, None, asked)
    remote = load_config(CodeConfig, None, [*asked, "ray={batch_programs: 2}"])
    found = []
    for name, config in (("here", local), ("there", remote)):
        with opened_cluster(config), Run.open(tmp_path / name, config, seed=0) as run:
            found.append(
                matrix_stage(
                    run.stage("execute", {}),
                    "matrices.jsonl",
                    [task],
                    programs,
                    tests,
                    config.sandbox,
                    max_tests=4,
                    prompt=config.prompt,
                    open_backend=lambda config=config: open_sandbox(config),
                )
            )
    assert found[0] == found[1]
    rows = found[0][0].passed
    assert rows == ((True, True, False), (True, False, False), (False, False, True), (False,) * 3)
    assert ray.is_initialized()  # what was connected before stays connected


def test_a_cluster_that_is_not_there_is_one_sentence():
    ray.shutdown()
    pattern = r"ray\.address=127\.0\.0\.1:9: no cluster answers .* set ray\.address=local"
    with pytest.raises(BackendError, match=pattern), connected("127.0.0.1:9"):
        pass
