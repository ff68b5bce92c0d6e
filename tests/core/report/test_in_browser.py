"""The report in a real browser: nothing runs, nothing is requested, the plots are painted."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from trillium.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH; apt-get install chromium"),
]
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1280,2400",
)
ATTACK = (
    "</pre></title></style><script>document.title='owned'</script>"
    "<img src=http://127.0.0.1:9/picture onerror=\"document.title='owned'\">"
)


def browse(folder: Path, html: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def requested(net_log: Path) -> set[str]:
    """Return the pages' own requests that a browser's network log names."""
    events = json.loads(net_log.read_text())["events"]
    urls = {event.get("params", {}).get("url", "") for event in events}
    return {url for url in urls if url.startswith(("http", "ws")) and "google" not in url}


def console(run: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in run.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.security
def test_the_page_runs_nothing_and_asks_for_nothing(tmp_path, say):
    log = tmp_path / "net.json"
    run = browse(tmp_path, render_report(say(ATTACK)), "--dump-dom", f"--log-net-log={log}")
    assert run.stdout.count('<svg role="img"') == 2
    assert "<title>owned" not in run.stdout
    assert "<script" not in run.stdout
    assert "<img" not in run.stdout
    assert console(run) == []
    assert requested(log) == set()


@pytest.mark.security
def test_these_checks_see_an_attack_that_works(tmp_path):
    log = tmp_path / "net.json"
    attacked = f"<title>fine</title>{ATTACK}<script>console.log('ran')</script>"
    run = browse(tmp_path, attacked, "--dump-dom", f"--log-net-log={log}")
    assert "<title>owned" in run.stdout
    assert console(run)
    assert requested(log) == {"http://127.0.0.1:9/picture"}


@pytest.mark.parametrize(
    ("arguments", "page", "line"),
    [((), "#f7f6f2", "#0b6ca8"), (("--force-dark-mode",), "#14181a", "#62b5ec")],
    ids=["light", "dark"],
)
def test_plots_are_painted_in_the_colours_of_the_theme(tmp_path, say, arguments, page, line):
    picture = tmp_path / "page.png"
    browse(tmp_path, render_report(say("x")), f"--screenshot={picture}", *arguments)
    pixels = (imread(picture)[..., :3] * 255).round().astype(int)
    assert share_of(pixels, page) > 0.2
    assert share_of(pixels, line) > 0.005


def share_of(pixels: np.ndarray, color: str) -> float:
    wanted = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return float((np.abs(pixels - wanted).max(axis=-1) <= 2).mean())
