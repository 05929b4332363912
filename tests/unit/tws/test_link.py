"""The connection's states and what it does about silence: no socket, no clock."""

import itertools
import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from newshead.tws.durations import Durations
from newshead.tws.link import (
    TRANSITIONS,
    AskForTime,
    Change,
    CheckSubscriptions,
    ConnectionState,
    Event,
    GiveUp,
    Link,
    LinkError,
)

DURATIONS = Durations(heartbeat_s=10, answer_s=5, recovery_s=2, distrust_s=30)
DISCONNECTED, CONNECTING, SOCKET_OPEN, READY, STALE = ConnectionState
WHY = "the farm is broken"


def link_in(state: ConnectionState) -> Link:
    """A link whose last message came at 0."""
    link = Link(DURATIONS)
    steps = [Event.CONNECT, Event.OPENED, Event.ACCEPTED]
    for event in steps[: [DISCONNECTED, CONNECTING, SOCKET_OPEN, READY].index(state)]:
        link.on(event)
    link.heard(0)
    return link


def stale_link(since: float) -> Link:
    link = link_in(READY)
    link.offline(WHY, since)
    return link


# States


def test_an_attempt_goes_from_disconnected_to_ready_and_its_end_back() -> None:
    link = Link(DURATIONS)
    changes = [
        link.on(event) for event in (Event.CONNECT, Event.OPENED, Event.ACCEPTED, Event.CLOSED)
    ]
    states = [DISCONNECTED, CONNECTING, SOCKET_OPEN, READY, DISCONNECTED]
    assert changes == [Change(*pair) for pair in itertools.pairwise(states)]


@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("event", Event)
def test_an_event_leads_where_the_table_says_and_raises_where_it_says_nothing(
    state: ConnectionState, event: Event
) -> None:
    link = Link(DURATIONS)
    link.state = state
    after = TRANSITIONS.get((state, event))
    if after is None:
        with pytest.raises(LinkError, match=f"{event.value} while {state.value}"):
            link.on(event)
        assert link.state is state
    else:
        assert link.on(event) == (None if after is state else Change(state, after))
        assert link.state is after


def test_every_state_can_end() -> None:
    assert {TRANSITIONS[state, Event.CLOSED] for state in ConnectionState} == {DISCONNECTED}


@pytest.mark.parametrize("state", ConnectionState)
def test_ready_and_stale_are_connected(state: ConnectionState) -> None:
    link = Link(DURATIONS)
    link.state = state
    assert link.connected == (state in (READY, STALE))


# Assigned from outside


@pytest.mark.parametrize("connected", [True, False])
def test_what_is_assigned_holds_until_the_next_event(connected: bool) -> None:
    link = link_in(DISCONNECTED if connected else READY)
    before, after = link.state, READY if connected else DISCONNECTED
    assert link.assign(connected) == Change(before, after)
    assert (link.state, link.connected) == (after, connected)
    assert link.on(Event.CLOSED) == (Change(READY, DISCONNECTED) if connected else None)
    assert not link.connected


@pytest.mark.parametrize(("state", "connected"), [(READY, True), (SOCKET_OPEN, False)])
def test_assigning_what_is_so_changes_nothing(state: ConnectionState, connected: bool) -> None:
    link = link_in(state)
    assert link.assign(connected) is None
    assert link.state is state


def test_stale_stays_stale_when_it_is_assigned_connected() -> None:
    link = stale_link(0)
    assert link.assign(True) is None
    assert link.state is STALE


def test_an_event_that_the_assigned_state_does_not_know_goes_on_from_the_true_one() -> None:
    link = link_in(CONNECTING)
    link.assign(True)
    link.assign(False)
    link.assign(True)
    assert link.on(Event.OPENED) == Change(READY, SOCKET_OPEN)
    with pytest.raises(LinkError):
        link.on(Event.CONNECT)


def test_an_assigned_link_can_lose_its_data() -> None:
    link = link_in(DISCONNECTED)
    link.assign(True)
    assert link.offline(WHY, 1) == Change(READY, STALE)


# Data


def test_lost_data_makes_it_stale_with_the_reason_until_tws_says_otherwise() -> None:
    link = link_in(READY)
    assert link.offline(WHY, 1) == Change(READY, STALE)
    assert link.stale_reason == WHY
    assert link.offline("and another", 2) is None
    assert link.stale_reason == "and another"
    assert link.online_without_subscriptions() == Change(STALE, READY)
    assert link.stale_reason == ""
    assert link.watch(9) == []


def test_data_ends_it_but_not_what_was_on_its_way() -> None:
    link = stale_link(1)
    assert link.data_came(3) is None
    assert link.data_came(3.1) == Change(STALE, READY)
    assert link.data_came(3.2) is None


@pytest.mark.parametrize("flowing", [True, False])
def test_subscriptions_are_checked_once_after_an_outage_even_if_some_flowed_meanwhile(
    flowing: bool,
) -> None:
    link = stale_link(1)
    if flowing:
        assert link.data_came(4) == Change(STALE, READY)
    change = link.online(5)
    assert change == (None if flowing else Change(STALE, READY))
    assert link.watch(6.9) == []
    assert link.watch(7.5) == [CheckSubscriptions(2.5)]
    assert link.watch(8) == []


def test_the_news_of_data_without_an_outage_before_is_none() -> None:
    link = link_in(READY)
    assert link.online(1) is None
    assert link.watch(9) == []


def test_an_outage_that_follows_takes_the_check_back() -> None:
    link = stale_link(1)
    link.online(2)
    link.offline(WHY, 3)
    assert link.watch(9) == []


# Farms


def test_it_is_stale_until_each_broken_farm_is_back_by_its_own_name() -> None:
    link = link_in(READY)
    assert link.farm_broke("usfarm", "one", 1) == Change(READY, STALE)
    assert link.farm_broke("usfarm.nj", "two", 2) is None
    assert link.farm_back("hfarm", 3) is None
    assert link.farm_back("usfarm", 3) is None
    assert (link.farms_away, link.stale_reason) == (["usfarm.nj"], "two")
    # The farm that is back already has its tickers looked after.
    assert link.watch(5) == [CheckSubscriptions(2)]
    assert link.farm_back("usfarm.nj", 6) == Change(STALE, READY)
    assert link.stale_reason == ""
    assert link.watch(8) == [CheckSubscriptions(2)]


def test_a_break_without_a_name_ends_with_any_farm_s_return() -> None:
    link = link_in(READY)
    link.farm_broke("", WHY, 1)
    assert link.farm_back("usfarm", 2) == Change(STALE, READY)


def test_a_farm_that_was_not_away_is_no_return() -> None:
    link = link_in(READY)
    assert link.farm_back("usfarm", 1) is None
    assert link.watch(9) == []


def test_a_farm_stays_away_although_tws_itself_is_online_again() -> None:
    link = link_in(READY)
    link.farm_broke("usfarm", WHY, 1)
    link.offline("offline", 2)
    assert link.stale_reason == "offline"
    assert link.online(3) is None
    assert link.stale_reason == WHY
    link.offline("offline", 4)
    assert link.online_without_subscriptions() is None
    assert link.farm_back("usfarm", 5) == Change(STALE, READY)


@pytest.mark.parametrize(
    ("away", "state"), [({}, READY), ({"usfarm.nj": "still away"}, STALE)], ids=["none", "one"]
)
def test_only_the_farms_that_tws_lists_as_away_are_so_once_it_is_online(
    away: dict[str, str], state: ConnectionState
) -> None:
    link = link_in(READY)
    link.farm_broke("usfarm", WHY, 1)
    link.offline("offline", 2)
    link.online(3, away)
    assert link.state is state
    assert link.farms_away == list(away)
    assert link.stale_reason == "".join(away.values())
    assert link.watch(5) == [CheckSubscriptions(2)]


def test_farms_that_are_away_without_an_outage_before_make_it_stale() -> None:
    link = link_in(READY)
    assert link.online(1, {"usfarm": WHY}) == Change(READY, STALE)


def test_what_tws_said_before_it_took_requests_shows_once_it_does() -> None:
    link = link_in(SOCKET_OPEN)
    assert link.farm_broke("usfarm", WHY, 1) is None
    assert (link.state, link.stale_reason) == (SOCKET_OPEN, "")
    assert link.accepted(2) == Change(SOCKET_OPEN, STALE)
    assert link.stale_reason == WHY
    assert link.accepted(3) is None


def test_stocks_are_unknown_for_good_only_with_data_and_past_the_connection_s_first_seconds() -> (
    None
):
    link = link_in(SOCKET_OPEN)
    assert link.accepted(100) == Change(SOCKET_OPEN, READY)
    assert not link.knows_stocks(129.9)
    assert link.accepted(120) is None
    assert link.knows_stocks(130)
    link.farm_broke("usfarm", WHY, 140)
    assert not link.knows_stocks(141)


# Silence


def test_a_quiet_connection_is_asked_for_the_time_once_and_then_given_up() -> None:
    link = link_in(READY)
    assert link.watch(9.9) == []
    assert link.watch(10) == [AskForTime()]
    assert link.watch(14.9) == []
    assert link.watch(15) == [GiveUp(15)]


def test_a_message_is_a_sign_of_life() -> None:
    link = link_in(READY)
    assert link.watch(10) == [AskForTime()]
    link.heard(14)
    assert link.watch(15) == []
    assert link.watch(24) == [AskForTime()]


def test_the_quiet_is_counted_from_the_last_message_and_is_none_before_the_first() -> None:
    link = Link(DURATIONS)
    assert link.quiet_s(5) == 0
    link.heard(3)
    assert link.quiet_s(5) == 2
    assert link.quiet_s(2) == 0


# Whatever happens


DATA_EVENTS = {Event.DATA_LOST, Event.DATA_BACK}
FARMS = ["usfarm", "usfarm.nj", "newfarm"]


class Histories(RuleBasedStateMachine):
    """A link through any order of events, beside what is known of it from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.link = Link(DURATIONS)
        self.changes: list[Change] = []
        self.heard_at = -math.inf
        self.asked_at = math.inf
        self.checks_due = 0
        self.offline = False
        self.away: set[str] = set()

    def noted(self, change: Change | None) -> None:
        if change is not None:
            self.changes.append(change)

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # What becomes of data is told by the calls below.
    @rule(event=st.sampled_from(sorted(set(Event) - DATA_EVENTS, key=str)))
    def something_happens(self, event: Event) -> None:
        before = self.link.state
        try:
            self.noted(self.link.on(event))
        except LinkError:
            assert (before, event) not in TRANSITIONS
            assert self.link.state is before

    @rule(connected=st.booleans())
    def it_is_assigned(self, connected: bool) -> None:
        self.noted(self.link.assign(connected))
        assert self.link.connected == connected

    @rule()
    def a_message_comes(self) -> None:
        self.link.heard(self.now)
        self.heard_at, self.asked_at = self.now, math.inf

    @precondition(lambda self: self.link.state is not CONNECTING)
    @rule()
    def data_is_lost(self) -> None:
        self.noted(self.link.offline(WHY, self.now))
        self.offline = True
        self.checks_due = 0

    @precondition(lambda self: self.link.state is not CONNECTING)
    @rule(name=st.sampled_from(FARMS))
    def a_farm_breaks(self, name: str) -> None:
        self.noted(self.link.farm_broke(name, WHY, self.now))
        self.away.add(name)
        self.checks_due = 0

    @precondition(lambda self: self.link.state is not CONNECTING)
    @rule(name=st.sampled_from(FARMS))
    def a_farm_is_back(self, name: str) -> None:
        self.noted(self.link.farm_back(name, self.now))
        if name in self.away:
            self.away.discard(name)
            self.checks_due = 1

    @precondition(lambda self: self.link.state is not CONNECTING)
    @rule(away=st.sets(st.sampled_from(FARMS)))
    def tws_lists_the_farms_that_are_away(self, away: set[str]) -> None:
        if self.offline or self.away or away:
            self.checks_due = 1
        self.noted(self.link.online(self.now, dict.fromkeys(away, WHY)))
        self.offline, self.away = False, away

    @precondition(lambda self: self.link.state is not CONNECTING)
    @rule(with_subscriptions=st.booleans())
    def data_is_back(self, with_subscriptions: bool) -> None:
        if with_subscriptions:
            self.noted(self.link.online(self.now))
            self.checks_due = 1
        else:
            self.noted(self.link.online_without_subscriptions())
        self.offline = False
        assert self.link.state is not STALE or self.away

    @rule()
    def data_comes(self) -> None:
        self.noted(self.link.data_came(self.now))

    @precondition(lambda self: self.heard_at > -math.inf)
    @rule()
    def it_is_watched(self) -> None:
        for task in self.link.watch(self.now):
            match task:
                case AskForTime():
                    assert self.asked_at == math.inf
                    assert self.now - self.heard_at >= DURATIONS.heartbeat_s
                    self.asked_at = self.now
                case GiveUp(quiet_s):
                    assert self.now - self.asked_at >= DURATIONS.answer_s
                    assert quiet_s == self.now - self.heard_at
                case CheckSubscriptions(since_s):
                    assert since_s >= DURATIONS.recovery_s
                    self.checks_due -= 1
        assert self.checks_due >= 0

    @invariant()
    def the_farms_that_are_away_are_those_that_are_not_back(self) -> None:
        assert self.link.farms_away == sorted(self.away)

    @invariant()
    def the_changes_lead_from_the_first_state_to_the_present_one(self) -> None:
        states = [DISCONNECTED, *(change.after for change in self.changes)]
        assert [change.before for change in self.changes] == states[:-1]
        assert self.link.state is states[-1]


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
