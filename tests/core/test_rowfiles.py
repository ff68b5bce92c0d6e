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
        f'{path}:2: field "rejected" is missing (needs prompt, chosen, rejected); '
        "drop the line or add the field"
    )
    assert [line.split(" ")[0].removeprefix(f"{tmp_path}/") for line in lines] == [
        "pairs.jsonl:2:",
        "pairs.jsonl:4:",
        "pairs.jsonl:5:",
        "pairs.jsonl:6:",
        "pairs.jsonl:7:",
        "pairs.jsonl:7:",
    ]
    assert "is not JSON" in lines[1]
    assert "is a list, not an object" in lines[2]
    assert "is not UTF-8" in lines[3]


def test_a_field_missing_everywhere_is_one_sentence() -> None:
    with pytest.raises(DataError) as caught:
        parse_rows([{"prompt": "p", "chosen": "c"}] * 250, PairRow, where="rows")

    assert str(caught.value).startswith(
        'rows:1, 2, 3, 4, 5 and 245 more: field "rejected" is missing (needs prompt, '
    )


def test_rows_remember_their_lines_and_are_equal_without_them(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    record = {"prompt": "p", "chosen": "c", "rejected": "r"}
    path.write_text(f"\n{json.dumps(record)}\n")

    row = load_rows(path, PairRow)[0]

    assert str(row.place) == f"{path}:2"
    assert row == PairRow(prompt="p", chosen="c", rejected="r")
    assert "where" not in row.to_record()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            '{"prompt": "\\ud83d", "chosen": "c", "rejected": "r"}',
            "holds \\ud83d, half of a character; correct or drop the line",
        ),
        ("[" * 100_000, "is nested too deeply to be read; correct or drop the line"),
        (
            '{"margin": ' + "9" * 5000 + "}",
            "holds a number of thousands of digits; correct or drop the line",
        ),
        (
            '{"prompt": "p", "chosen": "c", "rejected": "r", "margin": ' + "9" * 400 + "}",
            f'field "margin" is {"9" * 57}... (needs a finite number); correct the line',
        ),
    ],
)
def test_hostile_lines_are_told_like_any_other_mistake(
    tmp_path: Path, line: str, sentence: str
) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(line + "\n")

    with pytest.raises(DataError) as caught:
        load_rows(path, PairRow)

    assert str(caught.value) == f"{path}:1: {sentence}"


def test_half_a_character_in_raw_bytes_names_its_line_and_a_byte_order_mark_is_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "pairs.jsonl"
    good = b'\xef\xbb\xbf{"prompt": "p", "chosen": "c", "rejected": "r"}\n'
    path.write_bytes(good)
    assert load_rows(path, PairRow)[0].chosen == "c"
    path.write_bytes(good + b'{"prompt": "p", "chosen": "\xed\xa0\x80", "rejected": "r"}\n')

    with pytest.raises(DataError) as caught:
        load_rows(path, PairRow)

    assert str(caught.value) == (
        f"{path}:2: is not UTF-8 (invalid continuation byte, byte 27); save the file as UTF-8"
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_another_encoding_is_named_once(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(('{"prompt": "p"}\n' * 9).encode(encoding))

    with pytest.raises(DataError) as caught:
        load_rows(path, PairRow)

    assert str(caught.value) == (
        f"{path}: is not UTF-8 text (it holds zero bytes); save it as UTF-8"
    )


def test_binary_columns_are_no_conversations(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    record = {"prompt": b"p", "chosen": b"c", "rejected": b"r"}
    pq.write_table(pa.Table.from_pylist([record]), path)

    with pytest.raises(DataError, match=r'field "chosen" is "b\'c\'" \(needs a string'):
        load_rows(path, PairRow)


@pytest.mark.parametrize("calls", [["add"], [{"function": "add"}], [{"function": {}}], {"a": 1}])
def test_tool_calls_need_a_function_name(calls: object) -> None:
    reply = [{"role": "assistant", "content": "x", "tool_calls": calls}]
    prompt = [{"role": "user", "content": "q"}]

    with pytest.raises(
        DataError, match=r'rows:1: field "chosen\[0\].tool_calls" is .*function name'
    ):
        parse_rows([{"prompt": prompt, "chosen": reply, "rejected": reply}], PairRow, where="rows")


def test_very_many_problems_are_cut_and_counted() -> None:
    records = [{"prompt": "p", "chosen": "c", "rejected": number} for number in range(250)]
    with pytest.raises(DataError) as caught:
        parse_rows(records, PairRow, where="rows")

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

    with pytest.raises(DataError, match="is a folder"):
        load_rows(tmp_path, PairRow)
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


def test_a_field_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "chosen": "b", "rejected": "c"}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:1: has the field 'chosen' twice"):
        load_rows(path, PairRow)
