import pytest
from trillium.errors import DataError
from trillium_rec.sequence_files import read_item_texts, read_sequences


def test_s3_rec_lines_start_with_the_user(tmp_path):
    path = tmp_path / "Beauty.txt"
    path.write_text("1 1 2 3\n2 4 5\n")
    raw = read_sequences(path)
    assert raw.user == ["1", "1", "1", "2", "2"]
    assert raw.item == ["1", "2", "3", "4", "5"]
    assert raw.line == [1, 1, 1, 2, 2]


def test_only_a_line_feed_ends_the_line_of_a_user(tmp_path):
    path = tmp_path / "Beauty.txt"
    path.write_text("1 1 2\u20283 4\n2 4 5\n", encoding="utf-8")
    raw = read_sequences(path)
    assert (raw.user, raw.line) == (["1"] * 4 + ["2"] * 2, [1] * 4 + [2] * 2)


def test_bad_lines_are_listed_with_their_numbers(tmp_path):
    path = tmp_path / "Beauty.txt"
    path.write_text("1 1 2\n3\n1 4\n")
    with pytest.raises(DataError) as error:
        read_sequences(path)
    assert str(error.value).splitlines() == [
        f"{path}:2: user 3 has no item; drop the line",
        f"{path}:3: user 1 has a line already (line 1); join the two",
    ]


def test_json_sequences_map_users_to_items(tmp_path):
    path = tmp_path / "Beauty.inter.json"
    path.write_text('{"0": [7, 8], "1": [8, "x"]}')
    raw = read_sequences(path)
    assert list(zip(raw.user, raw.item, strict=True)) == [
        ("0", "7"),
        ("0", "8"),
        ("1", "8"),
        ("1", "x"),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"0": [1], "0": [2]}', "has the field '0' twice"),
        ('{"0": []}', "user 0 holds '[]' (needs a list of item ids)"),
        ('{"0": [1}', ":1: is not JSON"),
        ("{}", "holds no entries"),
        ("[" * 100_000, "x.json: is nested too deeply to be read"),
        ('{"0": ["half \\ud83d"]}', "x.json: holds \\ud83d, half of a character"),
        ('{"0": [1' + "0" * 5000 + "]}", "x.json: holds a number of thousands of digits"),
    ],
)
def test_bad_json_is_refused_in_one_sentence(tmp_path, content, sentence):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_sequences(path)
    assert sentence in str(error.value)


def test_a_json_file_that_is_not_there_is_named_once_with_one_remedy(tmp_path):
    path = tmp_path / "x.inter.json"
    with pytest.raises(DataError) as error:
        read_sequences(path)
    assert str(error.value) == (
        f"{path}: cannot be read (No such file or directory); give another path"
    )


def test_item_texts_join_the_fields_and_find_the_title(tmp_path):
    path = tmp_path / "x.item.json"
    path.write_text('{"4": {"title": "Relay", "brand": "Supco"}, "5": "A text"}')
    catalogue = read_item_texts(path)
    assert catalogue.ids == ("4", "5")
    assert catalogue.titles == ("Relay", "A text")
    assert catalogue.texts == ("Relay. Supco", "A text")
