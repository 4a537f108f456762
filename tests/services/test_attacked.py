"""A run ends with lines about the hostile input that it has tried."""

from tests.services.attacked import attacked


def test_each_sort_is_counted_once_and_its_tests_are() -> None:
    tests = [
        [("attacked", ("urls", 30)), ("attacked", ["urls", 30]), ("other", 1)],
        [("attacked", ("urls", 37))],
        [("attacked", ("answers", 90))],
        [],
    ]
    assert list(attacked(tests)) == [
        "attacked: 90 answers in 1 tests; 0 accepted at the door and refused inside",
        "attacked: 37 urls in 2 tests; 0 showed its password",
    ]
