import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from trillium.errors import DataError
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
