"""Text of news sources, made safe; and the times they write."""

import time
from datetime import UTC, datetime

import pytest

from newshead.text import folded, parse_time, plain_title, without_markup


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-22T09:30:00Z", datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
        ("2026-11-22T09:30:00-05:00", datetime(2026, 11, 22, 14, 30, tzinfo=UTC)),
        ("2026-11-22 09:30:00", datetime(2026, 11, 22, 9, 30, tzinfo=UTC)),
        ("2026-11-22T09:30:00.1234567Z", datetime(2026, 11, 22, 9, 30, 0, 123456, tzinfo=UTC)),
        ("Sun, 22 Nov 2026 09:30:00 -0500", datetime(2026, 11, 22, 14, 30, tzinfo=UTC)),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-01-01", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_times_are_read_as_news_sources_write_them(text: str, at: datetime | None) -> None:
    assert parse_time(text) == at


def test_text_becomes_one_line_that_any_log_and_column_takes() -> None:
    assert folded(" A\r\nB\t\x00\x1b[31mC\u202e\ud800 ", 100) == "A B [31mC"
    assert folded("word " * 1_000_000, 9) == "word word"
    assert folded("\x00" * 10, 100) == ""


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>Up <b>50&nbsp;%</b></p><p>Today &amp; tomorrow</p>", "Up 50 % Today & tomorrow"),
        ("<style>p{}</style><script>alert(1)</script>seen<template>no</template>", "seen"),
        ("no markup at all, 3 < 5", "no markup at all, 3 < 5"),
        ("<p>never closed <a href='", "never closed"),
        ("half of a pair \ud800", "half of a pair ?"),
        ("", ""),
    ],
)
def test_the_text_of_an_article_has_no_markup(html: str, text: str) -> None:
    assert without_markup(html, 8_000) == text


def test_a_body_of_a_megabyte_is_cut_in_little_time() -> None:
    began = time.monotonic()
    assert len(without_markup("<p>" + "word " * 200_000, 8_000)) == 7_999
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "bomb",
    [
        "<div>" * 50_000,
        "<b><i><u>" * 25_000 + "</p>" * 6_000,
        "".join(f"<b id={number}>" for number in range(20_000)),
    ],
    ids=["nested", "formatting", "formatting, each other"],
)
def test_hostile_markup_costs_no_more_time_than_its_length(bomb: str) -> None:
    began = time.monotonic()
    assert without_markup(f"<p>word</p>{bomb}deep", 8_000) == "word"
    assert time.monotonic() - began < 2


def test_paragraphs_and_items_without_an_end_do_not_nest() -> None:
    assert without_markup("<p>a<ul><li>b</ul><br>" * 1_000, 8_000) == ("a b " * 1_000).rstrip()


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("What&#39;s up, A&amp;B &#x26; C?", "What's up, A&B & C?"),
        ("A&amp;amp;B and &lt;b&gt;", "A&amp;B and <b>"),
        ("<b>FDA</b> clears <I class='x'>it</I><br/>today", "FDA clears it today"),
        ("<ABC> wins FDA, HR<MDR, p < 0.05 > q, <3", "<ABC> wins FDA, HR<MDR, p < 0.05 > q, <3"),
        ("AT&T, R&D; &copy2020 &nosuch; &#0;", "AT&T, R&D; &copy2020 &nosuch; \ufffd"),
        ("One&nbsp;two&#8238;three&#10;four", "One two three four"),
    ],
)
def test_a_title_loses_tags_of_html_and_its_entities_are_decoded_once(
    markup: str, text: str
) -> None:
    assert plain_title(markup, 1_000) == text


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p><ABC> wins</p> HR<MDR and p<0.05 &lt; q", "<ABC> wins HR<MDR and p<0.05 < q"),
        ('<a href="x" title="a<b">link</a> <td nowrap>x<p>y', "link x y"),
        ("<!-- no --><!DOCTYPE html><p>text<br/>more", "text more"),
        ("&amp;lt;b&amp;gt;", "&lt;b&gt;"),
    ],
)
def test_a_text_keeps_brackets_that_begin_no_tag_of_html(markup: str, text: str) -> None:
    assert without_markup(markup, 1_000) == text
