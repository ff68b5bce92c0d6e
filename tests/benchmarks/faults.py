"""Break runs of all three applications, run them again, compare every artefact byte for byte.

    python tests/benchmarks/faults.py [--points 20] [--apps code math rec] [--json FILE]

Each application runs a small whole journey on a tiny model once without disturbance. Then, at
random points of it: a SIGKILL at a random write, a disk that is full at a random size (a tmpfs,
needs root), and a kill followed by damage to the newest checkpoint. The same command goes on
afterwards; every output of every stage must have the hash of the undisturbed run. Exit code 1 when
one has not. Ten minutes an application.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

from trillium.files import hash_path
from trillium.manifest import read_manifest

TESTS = Path(__file__).resolve().parents[1]
CHILD = Path(__file__).with_name("faults_child.py")
KINDS = ("kill", "full disk", "damaged checkpoint")
# Outputs that hold times, which no two runs share.
_TIMES = {"timing.jsonl"}
_MOST_DRAWS = 20


@dataclass(frozen=True)
class Journey:
    """A small run of one application: its command, and what its checkpoints are called."""

    app: str
    command: tuple[str, ...]
    checkpoint: str


@dataclass(frozen=True)
class Undisturbed:
    """What a run without faults left behind."""

    outputs: dict[str, str]
    n_writes: int
    n_checkpoint_writes: int
    n_bytes: int


@dataclass(frozen=True)
class Outcome:
    """One broken run: what was done to it, whether it broke, and what differs afterwards."""

    app: str
    kind: str
    point: str
    broke: bool
    differs: list[str]


def prepare(app: str, folder: Path) -> Journey:
    """Write model, rows and run file of an application's small journey into `folder`."""
    if app == "rec":
        return Journey(app, ("rec", "run", "tiny"), "state.pt")
    if app == "code":
        demo = _load(TESTS / "e2e" / "test_code_demo.py")
        demo.teach(demo.write_tasks(folder / "tasks.jsonl"), folder / "model")
        (folder / "run.yaml").write_text(demo.CONFIG.format(folder=folder))
    else:
        _load(TESTS / "e2e" / "taught_math_policy.py").furnish(folder)
    return Journey(app, (app, "run", str(folder / "run.yaml")), "checkpoint-")


def run_undisturbed(journey: Journey, folder: Path) -> Undisturbed:
    """Run the journey once, and count its writes in all and while there are checkpoints."""
    done = _run(journey, folder / "all")
    if done.returncode != 0:
        raise SystemExit(f"{journey.app}: the undisturbed run fails: {done.stderr}")
    n_writes = int((folder / "all" / "writes").read_text())
    _run(journey, folder / "training", begin=journey.checkpoint)
    n_checkpoint = int((folder / "training" / "writes").read_text())
    outputs = read_outputs(folder / "all" / "run")
    again = read_outputs(folder / "training" / "run")
    if outputs != again:
        names = sorted(name for name, _ in outputs.items() ^ again.items())
        raise SystemExit(f"{journey.app}: two undisturbed runs differ in {', '.join(names)}")
    n_bytes = sum(path.stat().st_size for path in (folder / "all").rglob("*") if path.is_file())
    return Undisturbed(outputs, n_writes, n_checkpoint, n_bytes)


def read_outputs(run: Path) -> dict[str, str]:
    """Return the hash on disk of every output that the manifest names, by stage and path."""
    manifest = read_manifest(run)
    return {
        f"{name}:{output}": hash_path(run / output) if (run / output).exists() else "missing"
        for name, record in manifest.stages.items()
        for output in record.outputs
        if Path(output).name not in _TIMES
    }


def kill(journey: Journey, whole: Undisturbed, place: Path, chance: random.Random) -> str | None:
    """Kill at a random write; return what was done, or None when the run ended before."""
    at = chance.randint(1, whole.n_writes)
    done = _run(journey, place, kill_at=at)
    return f"write {at} of {whole.n_writes}" if done.returncode == -signal.SIGKILL else None


def damage(journey: Journey, whole: Undisturbed, place: Path, chance: random.Random) -> str | None:
    """Kill at a random write while there are checkpoints, and damage the newest one."""
    for _ in range(_MOST_DRAWS):
        at = chance.randint(1, whole.n_checkpoint_writes)
        done = _run(journey, place, kill_at=at, begin=journey.checkpoint)
        if done.returncode != -signal.SIGKILL:
            return None
        found = [path for path in (place / "run").rglob("*") if journey.checkpoint in str(path)]
        files = sorted(path for path in found if path.is_file() and path.stat().st_size)
        if files:
            break
        # Between two trainings there is none; what is left is no case of its own.
        shutil.rmtree(place)
    else:
        raise SystemExit(f"{journey.app}: {_MOST_DRAWS} kills left no checkpoint")
    newest = max(path.parent.stat().st_mtime_ns for path in files)
    path = chance.choice([path for path in files if path.parent.stat().st_mtime_ns == newest])
    content, how = path.read_bytes(), chance.choice(["cut", "flipped", "deleted"])
    middle = len(content) // 2
    if how == "cut":
        path.write_bytes(content[:middle])
    elif how == "flipped":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.unlink()
    return f"write {at} after the first checkpoint, {path.relative_to(place)} {how}"


def fill_disk(
    journey: Journey, whole: Undisturbed, place: Path, chance: random.Random
) -> str | None:
    """Run on a disk of random size that may be too small; return its size, or None if it was not.

    Raises SystemExit when the run ended in any other way than with a sentence about the disk.
    """
    size = max(64, int(whole.n_bytes * chance.uniform(0.02, 0.95)) // 1024)
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(place)], check=True)
    done = _run(journey, place)
    subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
    if done.returncode == 0:
        return None
    if done.returncode != 1 or "full" not in done.stderr or "Traceback" in done.stderr:
        raise SystemExit(f"{journey.app}: {size} KiB: exit {done.returncode}: {done.stderr}")
    return f"{size} KiB of {whole.n_bytes // 1024}"


@contextmanager
def workplace(folder: Path, *, is_disk: bool) -> Iterator[Path]:
    """Give an empty folder, a file system of its own where asked; delete it afterwards."""
    folder.mkdir()
    if is_disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        if is_disk:
            subprocess.run(["umount", str(folder)], check=True)
        shutil.rmtree(folder)


def break_runs(
    journey: Journey, whole: Undisturbed, folder: Path, *, n_points: int, seed: int
) -> Iterator[Outcome]:
    """Yield one outcome per point, the kinds of faults taking turns."""
    kinds = [kind for kind in KINDS if kind != "full disk" or os.geteuid() == 0]
    faults: dict[str, Callable[..., str | None]] = {
        "kill": kill,
        "full disk": fill_disk,
        "damaged checkpoint": damage,
    }
    for number in range(n_points):
        kind = kinds[number % len(kinds)]
        chance = random.Random(f"{journey.app} {seed} {number}")
        with workplace(folder / f"broken_{number}", is_disk=kind == "full disk") as place:
            point = faults[kind](journey, whole, place, chance)
            yield Outcome(journey.app, kind, point or "", bool(point), _mend(journey, whole, place))


def _mend(journey: Journey, whole: Undisturbed, place: Path) -> list[str]:
    """Run the same command again; return the outputs that differ from the undisturbed run."""
    done = _run(journey, place)
    if done.returncode != 0:
        return [f"the same command fails: {done.stderr.strip().splitlines()[-1:]}"]
    outputs = read_outputs(place / "run")
    names = sorted(whole.outputs.keys() | outputs.keys())
    return [name for name in names if whole.outputs.get(name) != outputs.get(name)]


def _run(
    journey: Journey, place: Path, *, kill_at: int = 0, begin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the journey below `place`: its run folder, its cache, and the number of its writes."""
    place.mkdir(exist_ok=True)
    numbers = [str(place), str(place.with_name(f"{place.name}.writes")), str(kill_at), begin]
    command = [*journey.command, "--output", str(place / "run")]
    environment = {
        **os.environ,
        "TRILLIUM_CACHE": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(CHILD), *numbers, "--", *command],
        env=environment,
        capture_output=True,
        text=True,
    )
    counted = place.with_name(f"{place.name}.writes")
    if counted.exists() and not os.path.ismount(place):
        counted.replace(place / "writes")
    return done


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"journey_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Break the applications' runs and say how many went on to the same bytes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=20, help="broken runs of each application")
    parser.add_argument("--apps", nargs="+", default=["code", "math", "rec"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    outcomes: list[Outcome] = []
    for app in chosen.apps:
        with tempfile.TemporaryDirectory(prefix="faults-") as name:
            folder = Path(name)
            journey = prepare(app, folder)
            whole = run_undisturbed(journey, folder)
            found = break_runs(journey, whole, folder, n_points=chosen.points, seed=chosen.seed)
            for outcome in found:
                outcomes.append(outcome)
                state = "differs: " + ", ".join(outcome.differs) if outcome.differs else "same"
                print(f"{app:5} {outcome.kind:18} {outcome.point or 'ended before':60} {state}")
    broke = Counter(outcome.app for outcome in outcomes if outcome.broke)
    same = Counter(outcome.app for outcome in outcomes if outcome.broke and not outcome.differs)
    for app in chosen.apps:
        print(f"{app}: {same[app]} of {broke[app]} broken runs ended in the same bytes")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
    raise SystemExit(any(outcome.differs for outcome in outcomes))


if __name__ == "__main__":
    main()
