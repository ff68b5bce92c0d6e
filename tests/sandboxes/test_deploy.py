"""The compose file of the service: what it says, and a container started as it says."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "sandbox"
COMPOSE = FOLDER / "compose.yaml"
IMAGE = "trillium-sandbox-service"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load(COMPOSE.read_text())


@pytest.fixture(scope="module")
def sandbox(compose):
    return compose["services"]["sandbox"]


def allowed(path):
    """Return the calls that a seccomp profile allows whatever their arguments."""
    rules = json.loads(path.read_text())["syscalls"]
    plain = [r for r in rules if r["action"] == "SCMP_ACT_ALLOW" and not r.get("args")]
    return {name for rule in plain for name in rule["names"]}


def test_the_service_is_reached_over_an_internal_network_only(compose, sandbox):
    assert sandbox["networks"] == ["sandbox"]
    assert compose["networks"] == {"sandbox": {"internal": True}}
    assert "ports" not in sandbox
    assert not {"network_mode", "extra_hosts", "volumes", "devices", "environment"} & set(sandbox)


def test_the_container_is_as_closed_as_it_can_be(sandbox):
    assert sandbox["user"] == "65534:65534"
    assert sandbox["read_only"] is True
    assert sandbox["cap_drop"] == ["ALL"]
    assert "cap_add" not in sandbox
    assert "privileged" not in sandbox
    assert sandbox["security_opt"] == ["no-new-privileges:true", "seccomp=./seccomp.json"]
    assert sandbox["ipc"] == "none"
    assert sandbox["mem_limit"] == sandbox["memswap_limit"] == "4g"
    assert sandbox["pids_limit"] == 512
    assert sandbox["ulimits"] == {"core": 0}
    (temporary,) = sandbox["tmpfs"]
    assert set(temporary.partition(":")[2].split(",")) >= {"size=64m", "nosuid", "nodev", "noexec"}


def test_callers_need_a_token_that_lies_in_a_file(compose, sandbox):
    assert sandbox["secrets"] == ["sandbox_token"]
    assert compose["secrets"] == {"sandbox_token": {"file": "./token"}}
    assert sandbox["command"][:2] == ["--token-file", "/run/secrets/sandbox_token"]
    assert "--no-token" not in sandbox["command"]


def test_the_profile_adds_ten_calls_to_that_of_programs_and_none_connects():
    programs = allowed(ROOT / "sandboxes" / "images" / "python" / "seccomp.json")
    service = allowed(FOLDER / "seccomp.json")
    assert programs <= service
    assert service - programs == {
        *("accept4", "bind", "listen", "socket"),
        *("capset", "mount", "mount_setattr", "pivot_root", "umount2", "unshare"),
    }
    assert "connect" not in service


def test_compose_accepts_the_file(tmp_path, check_compose):
    shutil.copytree(FOLDER, tmp_path / "sandbox")
    (tmp_path / "sandbox" / "token").write_text("token")
    check_compose(tmp_path / "sandbox" / "compose.yaml")


def docker(*arguments):
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def container(sandbox, tmp_path):
    """The service, started with the flags that the compose file stands for, but no network."""
    if not shutil.which("docker") or docker("version").returncode:
        pytest.skip("no Docker engine answers")
    if docker("image", "inspect", IMAGE).returncode:
        pytest.skip(f"there is no image {IMAGE}; run sandboxes/images/service/build")
    token = tmp_path / "token"
    token.write_text("a-token")
    token.chmod(0o444)
    tmp_path.chmod(0o755)
    options = ["--security-opt", "no-new-privileges:true"]
    options += ["--security-opt", f"seccomp={FOLDER / 'seccomp.json'}"]
    for name in ("user", "ipc", "cpus"):
        options += [f"--{name}", str(sandbox[name])]
    options += ["--memory", sandbox["mem_limit"], "--memory-swap", sandbox["memswap_limit"]]
    options += ["--pids-limit", str(sandbox["pids_limit"]), "--ulimit", "core=0", "--read-only"]
    options += ["--cap-drop", "ALL", "--tmpfs", sandbox["tmpfs"][0], "--network", "none"]
    options += ["--volume", f"{token}:/run/secrets/sandbox_token:ro"]
    started = docker("run", "--detach", *options, IMAGE, *sandbox["command"])
    assert started.returncode == 0, started.stderr
    name = started.stdout.strip()
    yield name
    docker("rm", "--force", name)


@pytest.mark.security
def test_a_container_started_so_holds_level_2_and_runs_programs(container, sandbox):
    logs = subprocess.Popen(
        ["docker", "logs", "--follow", container], stderr=subprocess.PIPE, text=True
    )
    assert logs.stderr.readline() == (
        "sandbox: embedded, level 2 (namespaces), on http://0.0.0.0:8080\n"
    )
    assert docker("exec", container, *sandbox["healthcheck"]["test"][1:]).returncode == 0
    call = "import socket; socket.create_connection(('127.0.0.1', 8080))"
    refused = docker("exec", container, "python3", "-c", call)
    assert refused.stderr.rstrip().endswith("PermissionError: [Errno 1] Operation not permitted")

    if os.geteuid() == 0 and shutil.which("nsenter"):
        program = {"id": "a", "mode": "script", "source": "print(6 * 7)"}
        assert ask(container, "wrong", program) == "401"
        assert json.loads(ask(container, "a-token", program))["stdout"] == "42\n"

    assert docker("stop", "--time", "30", container).returncode == 0
    assert logs.wait() == 0
    logs.stderr.close()
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container).stdout == "0\n"


def ask(container, token, program):
    """Post a program from within the container's own network; return the answer or its status."""
    (process,) = re.findall(
        r"\d+", docker("inspect", "--format", "{{.State.Pid}}", container).stdout
    )
    client = (
        "import sys, urllib.error, urllib.request as u\n"
        "token, body = sys.argv[1:]\n"
        "headers = {'Authorization': f'Bearer {token}'}\n"
        "r = u.Request('http://127.0.0.1:8080/run', body.encode(), headers)\n"
        "try: print(u.urlopen(r).read().decode())\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    command = ["nsenter", "--target", process, "--net", shutil.which("python3"), "-c", client]
    asked = subprocess.run(
        [*command, token, json.dumps(program)], capture_output=True, text=True, check=False
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()
