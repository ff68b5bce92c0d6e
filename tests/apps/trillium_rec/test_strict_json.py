import json

import pytest
from trillium.errors import DataError
from trillium_rec.strict_json import read_json


def test_json_is_read_as_json_loads_reads_it():
    text = '{"a": [1, 2.5, null, true], "b": {"c": "\\ud83d\\ude00 \\u00e9"}}'
    assert read_json(text) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"a": {"b": 1, "b": 2}}', "names b twice"),
        ('{"a": ["\\udc00"]}', r"holds \udc00, one half of a surrogate pair"),
        ('{"\\ud83d": 1}', r"holds \ud83d, one half of a surrogate pair"),
        ('{"\\ud83d": 1, "\\ud83d": 1}', r"holds \ud83d, one half of a surrogate pair"),
        ("[" * 100_000, "nests its lists too deeply"),
        ("9" * 5000, "holds a number that cannot be read"),
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
