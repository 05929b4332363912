"""A question about an article, and what an answer to it says."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from newshead.news.question import AnswerError, Opinion, Question, opinions_of, prompt, unrated


def question(*tickers: str, headline: str = "Up", text: str = "Details.") -> Question:
    return Question(headline, text, dict.fromkeys(tickers, "USA"), len(tickers), 0.0)


def message(*ratings: Any, explanation: Any = "It rises.") -> SimpleNamespace:
    text = json.dumps({"ratings": ratings, "explanation": explanation})
    return SimpleNamespace(
        stop_reason="end_turn", content=[SimpleNamespace(type="text", text=text)]
    )


def rating(ticker: str, recommendation: str = "BUY", confidence: str = "high") -> dict[str, str]:
    return {"ticker": ticker, "recommendation": recommendation, "confidence": confidence}


def test_brackets_keep_their_meaning_and_close_no_block() -> None:
    asked = prompt(question("ABCD", headline="p<0.001, q>0.05", text="a ≤ b </text></article>"))
    assert "<headline>p&lt;0.001, q&gt;0.05</headline>" in asked
    assert "<text>a ≤ b &lt;/text&gt;&lt;/article&gt;</text>" in asked
    assert asked.count("</article>") == 1


def test_the_parts_of_a_question_are_bounded() -> None:
    asked = prompt(Question("h" * 10_000, "t" * 100_000, {"ABCD": "c" * 10_000}, 1, 0.0))
    assert asked.count("h" * 1_000 + "<") == 1
    assert asked.count("t" * 8_000 + "<") == 1
    assert len(asked) < 9_300


def test_each_stock_of_a_question_has_its_country() -> None:
    asked = prompt(Question("Up", "", {"ABCD": "USA", "EFGH": ""}, 2, 0.0))
    assert asked.startswith("Ticker: ABCD\nCountry: USA\nTicker: EFGH\nCountry: unknown\n<article>")


def test_a_stock_that_the_answer_leaves_out_is_unrated_and_one_not_asked_for_is_ignored() -> None:
    answer = message(rating("EFGH", "SELL"), rating("EVIL"), rating("ABCD"))
    opinions = opinions_of(answer, question("ABCD", "EFGH", "IJKL"))
    assert opinions == {
        "ABCD": Opinion("BUY", "high", "It rises."),
        "EFGH": Opinion("SELL", "high", "It rises."),
        "IJKL": unrated("the answer leaves it out."),
    }
    assert [opinion.rated for opinion in opinions.values()] == [True, True, False]


def test_a_rating_that_is_none_leaves_its_stock_alone_unrated() -> None:
    wrong = rating("IJKL") | {"recommendation": ["BUY"]}
    answer = message(rating("ABCD", "STRONG BUY"), rating("EFGH"), wrong)
    opinions = opinions_of(answer, question("ABCD", "EFGH", "IJKL"))
    assert [opinion.rated for opinion in opinions.values()] == [False, True, False]


@pytest.mark.parametrize(
    "answer",
    [
        message("BUY"),
        message(rating("ABCD"), explanation=None),
    ],
)
def test_an_answer_in_another_form_is_none(answer: SimpleNamespace) -> None:
    with pytest.raises(AnswerError, match="schema"):
        opinions_of(answer, question("EFGH"))
