from trillium_sandbox import LEVELS, probe
from trillium_sandbox.levels import describe_level


def test_levels_are_numbered_from_0_to_5():
    assert [level.number for level in LEVELS] == [0, 1, 2, 3, 4, 5]


def test_every_level_says_what_it_stops_and_what_it_does_not():
    assert all(level.stops and level.does_not_stop for level in LEVELS)


def test_a_probe_answers_for_every_level_with_a_reason():
    probes = probe()
    assert [found.level for found in probes] == [0, 1, 2, 3, 4, 5]
    assert all(found.reason for found in probes)
    assert probes[2].available
    assert "namespaces" in probes[2].reason


def test_the_doctor_hears_the_highest_level_and_no_advice_where_it_is_enough():
    answer = describe_level()
    assert answer["found"].startswith("level 2 (namespaces): ")
    assert answer["advice"] == ""
