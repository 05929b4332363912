"""An outage is news when it begins, when its reason changes, and when it ends."""

from newshead.outage import Outage, Repeated


def test_an_outage_is_news_once_and_so_is_its_end() -> None:
    outage = Outage()
    assert not outage.ends()
    assert outage.begins()
    assert outage.lasts
    assert not outage.begins()
    assert outage.ends()
    assert not outage.ends()
    assert not outage.lasts
    assert outage.begins()


def test_another_reason_is_news_and_is_forgotten_with_the_end() -> None:
    outage = Outage()
    assert outage.begins("no disk")
    assert not outage.begins("no disk")
    assert outage.begins("no rights")
    assert outage.reason == "no rights"
    assert outage.ends()
    assert outage.reason == ""


def test_what_happens_often_is_told_once_a_minute_with_its_number() -> None:
    rubbish = Repeated()
    assert [rubbish.happens(now) for now in (100.0, 100.0, 159.9, 160.0, 161.0, 220.0)] == [
        *(1, 0, 0, 3, 0, 2)
    ]
    assert rubbish.count == 6
