"""Which questions the database does not answer: each is told once, whatever else fails or works."""

import logging
from enum import Enum

from newshead.database.connection import one_line
from newshead.database.store import RowWriter
from newshead.outage import Outage

# Rows and alerts are told where traders look for them.
logger = logging.getLogger("price_checker")


class Question(Enum):
    """What is asked, by what it means that it is not answered."""

    WINDOWS = "windows and ratings stand as they were"
    RULE = "alerts cannot be judged"
    NEWS = "alerts are not copied into price_move yet"
    OUTCOMES = "what came of windows is told later"


class Questions:
    """The questions that are not answered. For one event loop; `unanswered` for any thread."""

    def __init__(self, writer: RowWriter) -> None:
        """
        Parameters
        ----------
        writer
            Makes tables that are missing.
        """
        self._writer = writer
        self._outages = {question: Outage() for question in Question}

    def failed(self, question: Question, problem: Exception) -> None:
        """Note that a question was not answered."""
        self._writer.note_missing_table(problem)
        level = logging.ERROR if self._outages[question].begins() else logging.DEBUG
        logger.log(level, "ClickHouse does not answer, %s: %s", question.value, one_line(problem))

    def answered(self, question: Question) -> None:
        """Note that a question was answered."""
        if self._outages[question].ends():
            logger.info("ClickHouse answers again; no more: %s.", question.value)

    def unanswered(self, question: Question) -> bool:
        """Return whether the question was not answered when it was last asked."""
        return self._outages[question].lasts
