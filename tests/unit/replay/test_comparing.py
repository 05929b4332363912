"""Recorded rows beside stored ones."""

from typing import Any

from newshead.replay.comparing import Span, compare

Row = tuple[Any, ...]
A: Row = ("ABCD", 110, 2.0)
B: Row = ("ABCD", 112, 2.1)
C: Row = ("EFGH", 118, 3.0)


def span(*stored: Row, unsure: tuple[Row, ...] = (), cut: bool = False) -> Span:
    return Span(100.0, 120.0, cut, stored, unsure)


def test_rows_that_both_have_are_the_same_however_often() -> None:
    found = compare([A, A, B], [span(A), span(A, B)])
    assert found.lines("rows") == ["3 rows are the same."]


def test_a_row_that_one_of_them_lacks_is_told() -> None:
    found = compare([A, C], [span(A, B)])
    assert found.lines("rows") == [
        "Not in ClickHouse: ABCD 112 2.1",
        "Not in the recording: EFGH 118 3.0",
        "1 rows are the same.",
    ]


def test_rows_of_other_processes_do_not_count() -> None:
    found = compare([A, ("ABCD", 90, 1.0), ("ABCD", 130, 1.0)], [span(A)])
    assert found.lines("rows") == ["1 rows are the same."]


def test_rows_around_a_cut_are_left_out_and_counted() -> None:
    found = compare([A, C], [span(A, cut=True)])
    assert found.lines("rows") == ["1 rows are the same, 1 left out at the end of a recording."]
    assert compare([A, B], [span(A, cut=True)]).unknown == [B]


def test_rows_that_may_be_stored_or_not_are_left_out_and_counted() -> None:
    for there in ([A], [A, B]):
        found = compare(there, [span(A, unsure=(B,))])
        assert found.lines("rows") == ["1 rows are the same, 1 left out at the end of a recording."]
