import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trillium.errors import DataError
from trillium_rec.dataset import build_dataset
from trillium_rec.log_files import Columns, read_log, read_recbole, read_recbole_items

COLUMNS = Columns("user", "item", "time", "list", ("watch_s", "like"))


def test_csv_gives_every_column_and_requests_belong_to_their_user(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('user,item,time,list,watch_s,like,extra\nu,"a,b",7,1,2.5,1,?\nv,c,8,1,0,0,?\n')
    raw = read_log(path, COLUMNS)
    assert (raw.user, raw.item, raw.timestamp) == (["u", "v"], ["a,b", "c"], [7.0, 8.0])
    assert raw.feedback == {"watch_s": [2.5, 0.0], "like": [1.0, 0.0]}
    assert raw.request is not None
    assert raw.request[0] != raw.request[1]
    assert raw.line == [2, 3]


def test_every_bad_row_is_listed_with_its_line(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,list,watch_s,like\nu,a,x,1,1,1\n,a,1,1,1,1\nu,a,1,1,nan,1\n")
    with pytest.raises(DataError) as error:
        read_log(path, COLUMNS)
    assert str(error.value).splitlines() == [
        f"{path}:2: column \"time\" is 'x' (needs a finite number); correct or drop it",
        f'{path}:3: column "user" is empty (needs an id); fill it or drop the row',
        f"{path}:4: column \"watch_s\" is 'nan' (needs a finite number); correct or drop it",
    ]


def test_missing_columns_are_named_with_those_that_are_there(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\nu,a\n")
    with pytest.raises(DataError, match=r"has no column watch_s, like, time, list \(there is: us"):
        read_log(path, COLUMNS)


def test_parquet_gives_what_csv_gives(tmp_path):
    path = tmp_path / "log.parquet"
    times = pa.array([1_000_000, 2_500_000], pa.timestamp("us"))
    columns = {"user": [1, 1], "item": [5, 6], "time": times, "list": [1, 1]}
    pq.write_table(pa.table({**columns, "watch_s": [1.5, 0.0], "like": [True, False]}), path)
    raw = read_log(path, COLUMNS)
    assert (raw.user, raw.item, raw.timestamp) == (["1", "1"], ["5", "6"], [1.0, 2.5])
    assert raw.feedback["like"] == [1.0, 0.0]


def test_a_file_that_is_no_parquet_is_named(tmp_path):
    path = tmp_path / "log.parquet"
    path.write_text("user,item\n")
    with pytest.raises(DataError, match="is not a Parquet file"):
        read_log(path, COLUMNS)


def test_recbole_fields_come_by_their_types(tmp_path):
    path = tmp_path / "ml.inter"
    path.write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n"
    )
    raw = read_recbole(path)
    assert (raw.user, raw.item, raw.timestamp) == (["196"], ["242"], [881250949.0])
    assert raw.feedback == {"rating": [3.0]}


def test_a_header_without_types_is_no_recbole_file(tmp_path):
    path = tmp_path / "ml.inter"
    path.write_text("user_id\titem_id\n1\t2\n")
    with pytest.raises(DataError, match="expected name:type fields"):
        read_recbole(path)


def test_recbole_items_have_titles_and_texts_and_no_id_twice(tmp_path):
    path = tmp_path / "ml.item"
    head = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n"
    path.write_text(head + '1\tToy "Story"\tComedy\n')
    catalogue = read_recbole_items(path)
    assert catalogue.titles == ('Toy "Story"',)
    assert catalogue.texts == ('Toy "Story". Comedy',)
    path.write_text(head + "1\tA\tB\n1\tC\tD\n")
    with pytest.raises(DataError, match=":3: item id '1' is empty or occurs twice"):
        read_recbole_items(path)


# Line ends for str.splitlines, and for no file: U+0085, U+2028 and U+000B.
@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\x0b"])
def test_only_a_line_feed_ends_a_row(tmp_path, mark):
    log, items = tmp_path / "log.csv", tmp_path / "ml.item"
    log.write_text(f"user,item,note\nu,a,hello{mark}v b\nu,c,y\n", encoding="utf-8")
    raw = read_log(log, Columns("user", "item"))
    assert (raw.user, raw.item, raw.line) == (["u", "u"], ["a", "c"], [2, 3])
    head = "item_id:token\tmovie_title:token_seq\n"
    items.write_text(f"{head}1\tCaf{mark} Blues\n2\tX\n", encoding="utf-8")
    assert read_recbole_items(items).titles == (f"Caf{mark} Blues", "X")


@pytest.mark.parametrize("n_rows", [100, 20_000])
def test_a_quote_that_nobody_closes_is_named_with_its_line_and_swallows_no_rows(tmp_path, n_rows):
    path = tmp_path / "log.csv"
    rows = ["user,item,title", *(f"u{n},i{n},title number {n}" for n in range(n_rows))]
    rows[50] = 'u,i,"6 inch'
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"log\.csv:51: cannot be read as fields \(.*close every"):
        read_log(path, Columns("user", "item"))


def test_a_field_beyond_the_header_is_refused_and_a_last_delimiter_is_not(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,list,watch_s,like\nu,a,1,1,500,1,\n")
    assert read_log(path, COLUMNS).feedback["watch_s"] == [500.0]
    path.write_text("user,item,time,list,like,watch_s\nu,a,1,1,1,1,500\n")
    with pytest.raises(DataError, match=r":2: has 7 fields under 6 names, '500' is beyond"):
        read_log(path, COLUMNS)


def test_digits_with_underscores_are_no_number(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,list,watch_s,like\nu,a,1,1,1_0,1\n")
    with pytest.raises(DataError, match="needs a finite number"):
        read_log(path, COLUMNS)


def test_feedback_that_float32_cannot_hold_is_refused_and_such_a_time_is_not(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time,list,watch_s,like\nu,a,1e39,1,1e39,-1e39\n")
    with pytest.raises(DataError, match=r":2: column \"watch_s\" is 1e39 \(at most 3\.4e\+38 fits"):
        read_log(path, COLUMNS)


def read_column(tmp_path, values, **columns):
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": values, "item": ["x"] * len(values), **columns}), path)
    return read_log(path, Columns("user", "item", "time" if columns else None))


def test_parquet_times_of_a_nanosecond_are_cut_to_microseconds(tmp_path):
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    assert read_column(tmp_path, ["u"], time=times).timestamp == [1_700_000_000.123456]


def test_parquet_bytes_are_read_as_utf_8(tmp_path):
    assert read_column(tmp_path, [b"u1", "caf\u00e9".encode()]).user == ["u1", "caf\u00e9"]
    with pytest.raises(DataError, match='column "user" holds bytes that are not UTF-8'):
        read_column(tmp_path, [b"u1", b"\xff"])


def test_a_parquet_id_that_is_no_number_is_no_id(tmp_path):
    with pytest.raises(DataError, match=r':2: column "user" is empty \(needs an id\)'):
        read_column(tmp_path, pa.array([1.0, float("nan")]))


def test_recbole_fields_of_one_name_and_two_types_are_refused(tmp_path):
    path = tmp_path / "ml.inter"
    path.write_text("user_id:token\titem_id:token\tuser_id:float\nu\ti\t5\n")
    with pytest.raises(DataError, match=r"ml\.inter:1: the header names user_id twice"):
        read_recbole(path)


def test_recbole_ids_are_spelled_alike_in_both_files(tmp_path):
    log, items = tmp_path / "ml.inter", tmp_path / "ml.item"
    log.write_text("user_id:token\titem_id:token\nu\t i1\nu\t i2\n")
    head = "item_id:token\tmovie_title:token_seq\n"
    items.write_text(head + " i1\tToy\n i2\tStory\n")
    assert build_dataset(read_recbole(log), read_recbole_items(items)).catalogue.ids == (
        " i1",
        " i2",
    )
    items.write_text(head + "i1\tToy\n")
    with pytest.raises(DataError, match=r":2: item ' i1' and item 'i1' \(of the catalogue\) diff"):
        build_dataset(read_recbole(log), read_recbole_items(items))
