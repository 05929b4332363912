"""When a lost stream is connected again, and when it is asked for a replay."""

import pytest

from newshead.news.reconnect import REFUSED_WITHIN_S, REPLAY_LASTS_S, Replay, pause_s


@pytest.mark.parametrize(
    ("failures", "pause"), [(1, 2.0), (2, 4.0), (3, 8.0), (4, 15.0), (5, 15.0), (1_000, 15.0)]
)
def test_the_pauses_grow_to_a_quarter_of_a_minute(failures: int, pause: float) -> None:
    assert pause_s(failures) == pause


@pytest.mark.parametrize(
    ("told", "pause"),
    [("1", 1.0), ("7", 7.0), ("0", 1.0), ("86400", 900.0), ("", 8.0), ("soon", 8.0), ("-5", 8.0)],
)
def test_a_server_that_says_when_is_believed_within_bounds(told: str, pause: float) -> None:
    assert pause_s(3, told) == pause


def test_only_messages_close_behind_the_question_may_be_old() -> None:
    replay = Replay(wanted=True)
    assert not replay.covers(100.0)
    replay.asked(100.0)
    assert replay.covers(100.0 + REPLAY_LASTS_S)
    assert not replay.covers(100.1 + REPLAY_LASTS_S)
    replay.asked(200.0)
    assert replay.covers(201.0)


def test_a_connection_that_ends_on_the_first_question_is_asked_no_more() -> None:
    replay = Replay(wanted=True)
    assert not replay.ended(99.0)
    replay.asked(100.0)
    assert replay.ended(100.0 + REFUSED_WITHIN_S)
    assert not replay.wanted
    assert not replay.ended(101.0)


def test_a_connection_that_brought_an_article_proves_nothing_either_way() -> None:
    replay = Replay(wanted=True)
    replay.asked(100.0)
    replay.brought()
    assert not replay.ended(100.1)
    # No connection came about meanwhile.
    assert not replay.ended(105.0)
    replay.asked(110.0)
    assert replay.ended(110.1)
    assert not replay.wanted


def test_a_first_question_that_went_well_is_proof_for_the_run() -> None:
    replay = Replay(wanted=True)
    replay.asked(100.0)
    assert not replay.ended(100.1 + REFUSED_WITHIN_S)
    replay.asked(200.0)
    assert not replay.ended(200.1)
    assert replay.wanted
