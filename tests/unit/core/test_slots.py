"""The book of slots: of each slot the newest tick, and only finished slots come out."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from newshead.core.slots import Slot, SlotBook

START = datetime(2026, 11, 25, 15, 0, 0, tzinfo=UTC)
FIRST = int(START.timestamp() // 2)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def tick(seconds: float, price: float = 1.0) -> dict[str, Any]:
    return {"price": price, "volume": 1, "timestamp": at(seconds), "source": "test"}


def test_of_one_slot_the_newest_tick_counts_also_where_it_came_first() -> None:
    book = SlotBook(2.0)
    book.add("ABCD", [tick(0.1, 1.0), tick(1.9, 3.0), tick(0.5, 2.0)])
    assert book[Slot("ABCD", FIRST)]["price"] == 3.0
    assert len(book) == 1


def test_a_slot_is_finished_when_the_next_begins_and_only_for_the_tickers_asked_for() -> None:
    book = SlotBook(2.0)
    book.add("ABCD", [tick(0.1)])
    book.add("EFGH", [tick(0.1)])
    assert book.finished(at(1.99), {"ABCD", "EFGH"}) == []
    assert book.finished(at(2.0), {"ABCD"}) == [Slot("ABCD", FIRST)]
    assert book.tickers == {"ABCD", "EFGH"}


def test_a_slot_far_ahead_from_a_clock_that_was_set_back_waits_for_nothing() -> None:
    book = SlotBook(2.0)
    book.add("ABCD", [tick(3600.0), tick(2.1)])
    assert book.finished(at(1.0), {"ABCD"}) == [Slot("ABCD", FIRST + 1800)]


def test_a_slot_ends_where_the_next_begins() -> None:
    assert SlotBook(2.0).end_s(Slot("ABCD", FIRST)) == START.timestamp() + 2.0


def test_what_is_removed_is_gone_and_the_rest_stays() -> None:
    book = SlotBook(2.0)
    book.add("ABCD", [tick(0.1), tick(2.1)])
    book.remove([Slot("ABCD", FIRST)])
    assert book.all == [Slot("ABCD", FIRST + 1)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B"]), st.integers(0, 2000), st.integers(1, 9), st.booleans()
        ),
        max_size=40,
    )
)
def test_each_slot_comes_out_once_with_its_newest_tick(
    history: list[tuple[str, int, int, bool]],
) -> None:
    """Ticks in the order of their times, with cycles between them."""
    book = SlotBook(2.0)
    came: dict[Slot, list[int]] = defaultdict(list)
    found: list[tuple[Slot, int]] = []

    def cycle(now: float) -> None:
        finished = book.finished(at(now), {"A", "B"})
        found.extend((slot, book[slot]["price"]) for slot in finished)
        book.remove(finished)

    for ticker, hundredths, price, cycles in sorted(history, key=lambda event: event[1]):
        seconds = hundredths / 100
        book.add(ticker, [tick(seconds, price)])
        came[Slot(ticker, FIRST + int(seconds // 2))].append(price)
        if cycles:
            cycle(seconds)
    cycle(30)
    assert len(book) == 0
    assert dict(found) == {slot: prices[-1] for slot, prices in came.items()}
    assert len(found) == len(came)
