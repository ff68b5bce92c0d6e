import json

import pytest
from trillium.errors import DataError
from trillium.strict_json import read_json


def test_json_is_read_as_json_loads_reads_it():
    text = '{"a": [1, 2.5, null, true], "b": {"c": "\\ud83d\\ude00 \\u00e9"}}'
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": {"b": 1, "b": 2}}', "has the field 'b' twice"),
        ('{"a": ["\\udc00"]}', r"holds \udc00, half of a character"),
        ('{"\\ud83d": 1}', r"holds \ud83d, half of a character"),
        ('{"\\ud83d": 1, "\\ud83d": 1}', r"holds \ud83d, half of a character"),
        ("[" * 100_000, "is nested too deeply to be read"),
        ("9" * 5000, "holds a number of thousands of digits"),
    ],
)
def test_what_json_loads_passes_over_or_dies_of_is_refused(text, sentence):
    with pytest.raises(DataError) as error:
        read_json(text)
    assert sentence in str(error.value)


def test_what_is_no_json_keeps_its_place():
    with pytest.raises(json.JSONDecodeError) as error:
        read_json('{\n"a": }')
    assert error.value.lineno == 2
