import json

from rich.console import Console
from trillium.evaluation import Interval
from trillium.report.arms import ArmsReport, cell_text, render_arms, write_arms
from trillium.report.content import Headline, Table

GAIN = Interval(0.1014, 0.03, 0.17)
TABLE = Table(
    "pass@1",
    ("arm", "pairs", "gain", "by seed"),
    (("codedpo", "181 + 205", GAIN, "+0.126 +0.088"), ("random", "9", None, None)),
)


def test_cells_have_three_digits_and_their_interval():
    assert [cell_text(cell) for cell in (None, 0.12345, 7, "a", GAIN)] == [
        *("n/a", "0.123", "7", "a"),
        "0.101 [0.03, 0.17]",
    ]


def test_a_narrow_terminal_shows_the_columns_asked_for_in_full():
    console = Console(width=48, record=True)
    console.print(render_arms("two arms", TABLE, shown=("arm", "gain", "by seed")))
    text = console.export_text()
    assert "pairs" not in text
    for word in ("codedpo", "random", "0.101", "[0.03, 0.17]", "+0.126", "+0.088", "n/a"):
        assert word in text


def test_all_cells_reach_the_file_and_the_report(tmp_path):
    report = ArmsReport(
        title="Arms",
        subtitle="two seeds",
        headlines=(Headline("codedpo", "+0.101"),),
        section="Arms",
        settings={"seeds": [0, 1]},
        command="trillium code ablate",
        seeds=(0, 1),
        shared_seconds=12.34,
    )
    page = write_arms(tmp_path, "ablation.json", TABLE, report).read_text()
    assert "181 + 205" in page
    assert "12 s per seed shared by all arms" in page
    values = json.loads((tmp_path / "ablation.json").read_text())
    assert values["shared_seconds"] == 12.3
    assert values["arms"][0] == {
        "arm": "codedpo",
        "pairs": "181 + 205",
        "gain": "0.101 [0.03, 0.17]",
        "by seed": "+0.126 +0.088",
    }
