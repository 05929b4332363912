"""Silence: a request shows whether TWS serves data; quiet stocks are no reason to be blind."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from newshead.tws.durations import DURATIONS
from newshead.tws.silence import Silence, Step

QUIET_S = DURATIONS.quiet_s
SNAPSHOT_S = DURATIONS.snapshot_s
REFERENCE_S = DURATIONS.reference_s


class Feed:
    """A connection, second by second: when data came, and what Silence had done about it."""

    def __init__(self, *, has_reference: bool = True) -> None:
        self.silence = Silence()
        self.has_reference = has_reference
        self.now = 1000.0
        self.data_at = -float("inf")
        self.steps: list[tuple[float, Step]] = []

    def run(
        self,
        seconds: float,
        *,
        snapshots: bool = False,
        trades_every: float = 0,
        awaited: bool = True,
    ) -> list[Step]:
        """Return the steps of the next seconds; each request may bring a snapshot."""
        begin = len(self.steps)
        for _ in range(int(seconds)):
            self.now += 1.0
            if trades_every and (self.now - 1000.0) % trades_every == 0:
                self.data_at = self.now
            done = self.silence.watch(
                self.now, self.data_at, awaited=awaited, has_reference=self.has_reference
            )
            self.steps += [(self.now, step) for step in done]
            if Step.RECONNECT in done:
                self.silence.connected()
            if snapshots and Step.ASK_AGAIN in done:
                self.data_at = self.now + 0.2
        return [step for _, step in self.steps[begin:]]

    def times(self, step: Step) -> list[float]:
        return [at - 1000.0 for at, done in self.steps if done is step]


def test_a_quiet_stock_is_asked_for_after_10_s_and_then_after_ever_longer_pauses() -> None:
    feed = Feed()
    feed.data_at = 1000.0
    feed.run(400, snapshots=True)
    asked = feed.times(Step.ASK_AGAIN)
    pauses = [b - a for a, b in zip([0.0, *asked], asked, strict=False)]
    assert [round(pause, -1) for pause in pauses[:6]] == [10, 20, 40, 80, 80, 80]
    assert len(feed.times(Step.LOG_NO_TRADES)) == len(asked)
    assert not feed.silence.blind


def test_a_trade_that_no_request_brought_makes_the_next_pause_short_again() -> None:
    feed = Feed()
    feed.data_at = 1000.0
    feed.run(60, snapshots=True)
    feed.data_at = feed.now
    assert Step.ASK_AGAIN not in feed.run(QUIET_S - 1, snapshots=True)
    assert Step.ASK_AGAIN in feed.run(2, snapshots=True)


def test_a_stock_with_a_quote_every_40_s_costs_three_requests_in_its_window() -> None:
    feed = Feed()
    feed.data_at = 1000.0
    feed.run(62, snapshots=True, trades_every=40)
    assert len(feed.times(Step.ASK_AGAIN)) <= 3
    assert set(feed.steps) & {Step.ASK_REFERENCE, Step.RECONNECT} == set()


def test_only_a_request_that_brings_nothing_leads_to_the_reference_and_then_to_blindness() -> None:
    feed = Feed()
    assert feed.run(QUIET_S + 1) == [Step.ASK_AGAIN]
    assert feed.run(SNAPSHOT_S) == [Step.ASK_REFERENCE]
    assert not feed.silence.blind
    assert feed.run(REFERENCE_S) == [Step.END_REFERENCE, Step.RECONNECT]
    assert feed.silence.blind


def test_without_a_reference_the_same_time_passes_before_blindness() -> None:
    feed = Feed(has_reference=False)
    assert feed.run(QUIET_S + 1 + SNAPSHOT_S) == [Step.ASK_AGAIN]
    assert Step.RECONNECT in feed.run(REFERENCE_S)
    assert feed.silence.blind


def test_an_answer_about_the_reference_proves_that_requests_are_served() -> None:
    feed = Feed()
    feed.run(QUIET_S + 1 + SNAPSHOT_S)
    assert feed.silence.served(feed.now) == [Step.END_REFERENCE, Step.LOG_NO_TRADES]
    assert feed.silence.served(feed.now) == []
    assert feed.run(QUIET_S) == []
    assert not feed.silence.blind
    assert feed.silence.served_at > 1000.0


def test_late_data_of_a_ticker_ends_the_request_for_the_reference() -> None:
    feed = Feed()
    feed.run(QUIET_S + 1 + SNAPSHOT_S)
    feed.data_at = feed.now
    assert feed.run(1) == [Step.END_REFERENCE, Step.LOG_NO_TRADES]


def test_a_connection_is_given_up_for_silence_once_in_five_minutes() -> None:
    feed = Feed()
    for _ in range(40):
        feed.run(30)
    reconnects = feed.times(Step.RECONNECT)
    assert len(reconnects) >= 3
    assert min(b - a for a, b in pairwise(reconnects)) >= 300
    assert feed.silence.blind


def test_data_ends_blindness() -> None:
    feed = Feed()
    feed.run(QUIET_S + SNAPSHOT_S + REFERENCE_S + 1)
    assert feed.silence.blind
    feed.run(3)
    feed.data_at = feed.now
    assert feed.run(5) == []
    assert not feed.silence.blind


def test_nothing_is_asked_for_while_no_data_is_awaited() -> None:
    feed = Feed()
    assert feed.run(100, awaited=False) == []
    feed.run(QUIET_S + 1 + SNAPSHOT_S)
    assert feed.run(1, awaited=False) == [Step.END_REFERENCE]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 90), st.booleans(), st.sampled_from([0, 0, 3, 40]), st.booleans()),
        max_size=30,
    )
)
def test_whatever_happens_requests_are_rare_and_each_reference_is_ended(
    history: list[tuple[int, bool, int, bool]],
) -> None:
    feed = Feed()
    for seconds, snapshots, trades_every, awaited in history:
        feed.run(seconds, snapshots=snapshots, trades_every=trades_every, awaited=awaited)
    feed.run(1, awaited=False)
    asked = feed.times(Step.ASK_AGAIN)
    assert all(b - a >= QUIET_S for a, b in pairwise(asked))
    references = [s for _, s in feed.steps if s in (Step.ASK_REFERENCE, Step.END_REFERENCE)]
    assert references[::2] == [Step.ASK_REFERENCE] * (len(references) // 2)
    assert references[1::2] == [Step.END_REFERENCE] * (len(references) // 2)
    reconnects = feed.times(Step.RECONNECT)
    assert all(b - a >= 300 for a, b in pairwise(reconnects))
    assert not feed.silence.blind
