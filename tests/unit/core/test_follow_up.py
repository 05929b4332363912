"""What is asked of IBKR after a window: when, at which pace, and what is not asked again."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from newshead.core.follow_up import SPANS_S, Ask, Bars, Counts, FollowUps, GiveUp, Pace

START = datetime(2026, 11, 25, 15, 0, 58, tzinfo=UTC)
PACE = Pace()
SHORT, LONG = Bars("ABCD", START, 5), Bars("ABCD", START, 60)
DUE = START + timedelta(minutes=31)


def knowing(*windows: tuple[str, datetime], stored: tuple[Bars, ...] = ()) -> FollowUps:
    book = FollowUps(PACE)
    book.learn(windows or [("ABCD", START)], stored, START)
    return book


def asked(book: FollowUps, at: float, now: datetime = DUE) -> Bars | None:
    """What is asked for while nothing is in the way."""
    match book.next(now, at, ready=True, waiting=False):
        case Ask(bars):
            return bars
    return None


def test_bars_begin_with_or_before_the_window_and_all_are_over_when_they_are_due() -> None:
    first = int(START.timestamp())
    assert (SHORT.begin, SHORT.end) == (first - 3, first + 122)
    assert (LONG.begin, LONG.end) == (first - 58, first + 1802)
    assert all(Bars("A", START, bar_s).end <= first + PACE.due_s for bar_s in SPANS_S)


def test_a_window_is_due_31_minutes_after_it_began_and_its_short_bars_come_first() -> None:
    book = knowing()
    assert asked(book, 0.0, DUE - timedelta(seconds=1)) is None
    assert asked(book, 1.0) == SHORT
    assert book.under_way == SHORT
    book.answered(2.0, found=True)
    assert asked(book, 15.0) is None
    assert asked(book, 16.0) == LONG


def test_the_oldest_window_comes_first() -> None:
    book = knowing(("ABCD", START), ("WXYZ", START - timedelta(seconds=1)))
    assert asked(book, 0.0) == Bars("WXYZ", START - timedelta(seconds=1), 5)


def test_nothing_is_asked_while_triggers_wait_or_tws_takes_no_requests() -> None:
    book = knowing()
    assert book.next(DUE, 0.0, ready=True, waiting=True) is None
    assert book.next(DUE, 0.0, ready=False, waiting=False) is None
    assert asked(book, 0.0) == SHORT


def test_what_is_stored_and_what_is_over_a_day_old_is_not_asked_for() -> None:
    assert asked(knowing(stored=(SHORT,)), 0.0) == LONG
    assert asked(knowing(stored=(SHORT, LONG)), 0.0) is None
    assert asked(knowing(), 0.0, START + timedelta(days=1)) == SHORT
    assert asked(knowing(), 0.0, START + timedelta(days=1, seconds=1)) is None


def test_what_was_refused_or_brought_nothing_is_counted_and_not_asked_again() -> None:
    book = knowing()
    asked(book, 0.0)
    book.refused(1.0)
    assert asked(book, 60.9) is None
    assert asked(book, 61.0) == LONG
    book.answered(62.0, found=False)
    book.learn([("ABCD", START)], [], DUE)
    assert asked(book, 1000.0) is None
    assert book.counts == Counts(asked=2, refused=1, missing=1)


def test_a_request_without_an_answer_is_given_up_after_a_minute() -> None:
    book = knowing()
    asked(book, 0.0)
    assert book.next(DUE, 59.9, ready=True, waiting=False) is None
    assert book.next(DUE, 60.0, ready=False, waiting=True) == GiveUp(SHORT)
    assert book.counts == Counts(asked=1, missing=1)
    assert asked(book, 119.9) is None
    assert asked(book, 120.0) == LONG


def test_an_answer_that_nothing_waits_for_changes_nothing() -> None:
    book = knowing()
    book.answered(0.0, found=True)
    book.refused(0.0)
    assert book.counts == Counts()
    assert asked(book, 0.0) == SHORT


def test_what_a_lost_connection_took_is_asked_again_but_only_once() -> None:
    book = knowing()
    book.lost(0.0)
    asked(book, 0.0)
    book.lost(5.0)
    assert book.counts == Counts()
    assert asked(book, 64.9) is None
    assert asked(book, 65.0) == SHORT
    book.lost(66.0)
    assert book.counts == Counts(asked=1, missing=1)
    assert asked(book, 200.0) == LONG


def test_a_look_at_the_database_does_not_repeat_what_is_under_way_or_just_answered() -> None:
    book = knowing()
    asked(book, 0.0)
    book.learn([("ABCD", START)], [], DUE)
    book.answered(1.0, found=True)
    book.learn([("ABCD", START)], [], DUE)
    assert asked(book, 100.0) == LONG


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["next", "next", "answered", "empty", "refused", "lost", "learn"]),
            st.integers(0, 90),
            st.booleans(),
            st.booleans(),
        ),
        max_size=120,
    )
)
def test_whatever_happens_the_pace_is_kept_and_nothing_is_answered_twice(
    history: list[tuple[str, int, bool, bool]],
) -> None:
    windows = [(ticker, START + timedelta(minutes=n)) for n, ticker in enumerate("ABCDEFGH")]
    book = knowing(*windows)
    at, asked_at, over = 0.0, [], set()
    for event, pause_s, ready, waiting in history:
        at += pause_s
        now = START + timedelta(seconds=at)
        under_way = book.under_way
        if event == "learn":
            book.learn(windows, [], now)
        elif event == "lost":
            book.lost(at)
        elif event == "next":
            match book.next(now, at, ready=ready, waiting=waiting):
                case Ask(bars):
                    assert ready
                    assert not waiting
                    assert under_way is None
                    assert bars not in over
                    assert bars.end <= now.timestamp()
                    asked_at.append(at)
                case GiveUp(bars):
                    assert bars == under_way
                    over.add(bars)
        elif under_way is not None:
            if event == "refused":
                book.refused(at)
            else:
                book.answered(at, found=event == "answered")
            over.add(under_way)
        counts = book.counts
        ended = counts.answered + counts.refused + counts.missing
        assert counts.asked == ended + (book.under_way is not None)
    for first, second in pairwise(asked_at):
        assert second - first >= PACE.gap_s
