"""An outage is news when it begins, when its reason changes, and when it ends; what recurs is news
once a minute."""

from newshead.outage import Outage, Recurrences


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


def test_what_recurs_is_told_once_a_minute_with_how_often() -> None:
    recurrences = Recurrences()
    assert recurrences.note("a wrong password", 5.0) == 1
    assert recurrences.note("a wrong password", 6.0) == 0
    assert recurrences.note("silence", 6.0) == 1
    assert recurrences.note("a wrong password", 64.9) == 0
    assert recurrences.note("a wrong password", 65.0) == 3
    assert recurrences.note("a wrong password", 130.0) == 1
