"""The news that a trigger may bring along, and fields of it that are of no use."""

from datetime import UTC, datetime
from typing import Any

import pytest

from newshead.monitor.trigger_news import TriggerNews, news_of


def test_a_trigger_without_a_headline_brings_no_news() -> None:
    assert news_of({"ticker": "ABCD", "source": "scanner"}) == (None, [])


def test_all_fields_are_read() -> None:
    content = {
        "headline": " FDA&#39;s\n<b>approval</b>",
        "url": "https://x/7",
        "text": "<p>Text</p>",
        "source": "my scanner",
        "published": "2026-11-22T09:30:00-05:00",
    }
    published = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
    assert news_of(content) == (
        TriggerNews("FDA's approval", "https://x/7", "<p>Text</p>", "my scanner", published),
        [],
    )


def test_a_headline_alone_is_enough() -> None:
    assert news_of({"headline": "Up"}) == (TriggerNews("Up", "", "", "trigger", None), [])


@pytest.mark.parametrize(
    ("fields", "unusable"),
    [
        ({"url": 7}, ["url"]),
        ({"text": ["x"], "source": {}}, ["text", "source"]),
        ({"published": "yesterday"}, ["published"]),
        ({"published": 1_700_000_000}, ["published"]),
    ],
)
def test_a_field_of_no_use_is_named_and_counts_as_missing(
    fields: dict[str, Any], unusable: list[str]
) -> None:
    assert news_of({"headline": "Up"} | fields) == (
        TriggerNews("Up", "", "", "trigger", None),
        unusable,
    )


@pytest.mark.parametrize("headline", [7, None, " ", ["Up"]])
def test_news_without_a_headline_of_use_is_none(headline: object) -> None:
    assert news_of({"headline": headline, "url": "https://x/7"}) == (None, ["headline"])
