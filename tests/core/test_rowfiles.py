import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trillium.errors import DataError
from trillium.fields import Message
from trillium.records import LabelledRow, PairRow, RankingRow, Row, TrajectoryRow
from trillium.rowfiles import load_rows, parse_rows, save_rows
from trillium.search_records import Step, TreeRow

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": None}}}
ROWS: list[tuple[type[Row], list[Row]]] = [
    (PairRow, [PairRow(prompt="p", chosen="c", rejected="r", columns={"margin": 1.5})]),
    (
        PairRow,
        [
            PairRow(
                prompt=(Message("user", "q"),),
                chosen=(Message("assistant", "é"),),
                rejected=(Message("assistant", "b"),),
                labels={"reward": (1.0, 0.0)},
                tools=(CALL,),
                template_kwargs={"enable_thinking": False},
            )
        ],
    ),
    (LabelledRow, [LabelledRow(prompt="p", completion="c", label=float(i)) for i in range(3)]),
    (RankingRow, [RankingRow(prompt="p", completions=("a", "b"), labels={"rank": (2.0, 1.0)})]),
    (
        TrajectoryRow,
        [
            TrajectoryRow(
                messages=(
                    Message("user", "q"),
                    Message("assistant", None, {"tool_calls": [CALL]}, scored=True),
                    Message("assistant", "abc", scored=((0, 1), (2, 3))),
                ),
                reward=1.0,
            ),
            TrajectoryRow(messages=(Message("assistant", "abc"),)),
        ],
    ),
    (
        TreeRow,
        [TreeRow(prompt="p", steps=(Step("a", -1), Step("b", 0, False)), leaves=(1,), labels={})],
    ),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize(("kind", "rows"), ROWS)
def test_rows_come_back_as_they_were(
    tmp_path: Path, suffix: str, kind: type[Row], rows: list[Row]
) -> None:
    path = tmp_path / f"rows{suffix}"

    save_rows(path, rows)

    assert load_rows(path, kind) == rows


def test_plain_messages_stay_readable_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"

    save_rows(path, ROWS[1][1])

    assert pq.read_table(path).to_pylist()[0]["chosen"] == [{"role": "assistant", "content": "é"}]


def test_foreign_parquet_loses_the_nulls_that_arrow_put_in(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "name": "n"},
    ]
    pq.write_table(pa.Table.from_pylist([{"messages": messages, "extra": None}]), path)

    row = load_rows(path, TrajectoryRow)[0]

    assert row.messages == (Message("user", "q"), Message("assistant", "a", {"name": "n"}))


def test_all_problems_of_a_file_are_reported_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    good = json.dumps({"prompt": "p", "chosen": "c", "rejected": "r"})
    path.write_bytes(
        b"\n".join(
            [
                good.encode(),
                b'{"prompt": "p", "chosen": "c"}',
                b"",
                b'{"prompt": ',
                b'["a list"]',
                b"\xff\xfe",
                b'{"prompt": "p", "chosen": 1, "rejected": 2}',
            ]
        )
    )

    with pytest.raises(DataError) as caught:
        load_rows(path, PairRow)

    lines = str(caught.value).splitlines()
    assert lines[0] == (
        'pairs.jsonl:2: field "rejected" is missing (needs prompt, chosen, rejected); '
        "drop the line or add the field"
    )
    assert [line.split(" ")[0] for line in lines] == [
        "pairs.jsonl:2:",
        "pairs.jsonl:4:",
        "pairs.jsonl:5:",
        "pairs.jsonl:6:",
        "pairs.jsonl:7:",
        "pairs.jsonl:7:",
    ]
    assert "is not JSON" in lines[1]
    assert "is no object" in lines[2]
    assert "is not UTF-8" in lines[3]


def test_very_many_problems_are_cut_and_counted() -> None:
    with pytest.raises(DataError) as caught:
        parse_rows([{"prompt": "p", "chosen": "c"}] * 250, PairRow, where="rows")

    lines = str(caught.value).splitlines()
    assert len(lines) == 101
    assert lines[-1] == "... and 150 more problems"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_an_empty_file_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), path)
    else:
        path.write_text("\n")

    with pytest.raises(DataError, match=rf"{name}: has no rows \(needs at least one with prompt"):
        load_rows(path, PairRow)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b")
    (tmp_path / "rows.parquet").write_text("a,b")

    with pytest.raises(DataError, match="there is no such file"):
        load_rows(tmp_path / "none.jsonl", PairRow)
    with pytest.raises(DataError, match="unknown kind of file"):
        load_rows(tmp_path / "rows.csv", PairRow)
    with pytest.raises(DataError, match="is not a Parquet file"):
        load_rows(tmp_path / "rows.parquet", PairRow)
    with pytest.raises(DataError, match="unknown kind of file"):
        save_rows(tmp_path / "rows.csv", ROWS[0][1])


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    save_rows(path, ROWS[0][1])
    before = path.read_bytes()
    broken = PairRow(id="x", prompt="p", chosen="c", rejected="r", columns={"margin": float("nan")})

    with pytest.raises(ValueError, match="not JSON compliant"):
        save_rows(path, [broken])

    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows.jsonl"]
