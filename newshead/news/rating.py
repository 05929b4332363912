"""The sentiment analysis: what Claude makes of a headline, within seconds or a little later."""

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from newshead.core.parts import Part
from newshead.database.connection import one_line
from newshead.database.tables import NOT_RATED
from newshead.loop import attempt
from newshead.news.parts import rating_part
from newshead.news.places import Places, Rank
from newshead.news.question import (
    SCHEMA,
    SYSTEM,
    AnswerError,
    Opinion,
    Question,
    ServiceError,
    opinions_of,
    prompt,
)
from newshead.news.steering import steering
from newshead.outage import Outage
from newshead.settings import Settings
from newshead.text import folded

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

logger = logging.getLogger(__name__)

# From an article's arrival to its opinion, the wait for a place included.
DEADLINE_S: Final = 8.0
# After that it is tried until so long after the arrival.
LATE_S: Final = 30.0
# One request may hang.
ATTEMPT_S: Final = 4.0
# The first pause between attempts, and the longest.
PAUSE_S: Final = 0.25
MAX_PAUSE_S: Final = 2.0
AT_ONCE: Final = 20
# How long a key that is rate-limited rests where the service does not say, and at the most.
REST_S: Final = 30.0
MAX_REST_S: Final = 300.0
RATE_LIMITED: Final = 429
# A second attempt usually succeeds; 529 is an overload of the whole service.
TRANSIENT_STATUSES: Final = (408, 409, 500, 502, 503, 504, 529)
# The key is wrong, or may not do this.
REFUSED_STATUSES: Final = (401, 403)
UNKNOWN_KEY: Final = 401
CLOSE_TIMEOUT_S: Final = 1.0

# An answer of five stocks and a sentence needs about half of it.
MAX_TOKENS: Final = 600


class LaterError(Exception):
    """There is no rating yet, but there may be one later; the text says why."""


class TransientError(Exception):
    """An attempt failed in a way that is over soon; the text says how."""


class Answer(NamedTuple):
    """What the analysis says of the stocks of a question."""

    opinions: dict[str, Opinion]
    """By ticker, one on each."""
    final: bool
    """Whether it is of no use to try again later."""


@dataclass
class _Key:
    variable: str
    client: "AsyncAnthropic"
    rests_until: float = 0.0  # time.monotonic()
    refused: bool = False


class Analyst:
    """Rate articles with Claude, at most 20 at once. One event loop.

    Without a key, or with `enabled=False`, every article is unrated and nothing is contacted.
    With one, the first Analyst of a process takes over a second to be constructed: it loads the
    service's library. It may be constructed in any thread.
    """

    def __init__(self, settings: Settings, *, enabled: bool = True) -> None:
        self._model = settings.sentiment_model
        self._holds_steering = settings.hold_steering
        self._places = Places(AT_ONCE)
        self._keys: list[_Key] = []
        self._outage = Outage()
        self._failed_at = 0.0
        # Why the last article was not rated, and when one was: time.monotonic().
        self._problem = ""
        self._success_at: float | None = None
        if not enabled:
            self._idle = "the sentiment analysis is switched off (--no-sentiment)."
        elif not settings.anthropic_keys:
            self._idle = "no key is set (ANTHROPIC_API_KEY)."
        else:
            self._idle = ""
            self._keys = _keys(settings)
        if self._keys:
            logger.info(
                "Articles are rated by %s (keys: %s).",
                self._model,
                ", ".join(key.variable for key in self._keys),
            )
        else:
            logger.warning("Every article is HOLD, nothing will alert: %s", self._idle)

    async def rate(self, question: Question) -> Answer:
        """Return what the analysis says, within DEADLINE_S of the article's arrival. Raises
        nothing."""
        if not self._keys:
            return Answer(question.unrated(self._idle), final=True)
        if self._holds_steering and (how := steering(question.headline, question.text)):
            reason = f"its text tries to steer the rating: it {how}."
            _log_unrated(", ".join(question.countries), reason)
            return Answer(question.unrated(reason), final=True)
        try:
            opinions = await self._ask(question, late=False)
            for ticker, opinion in opinions.items():
                if not opinion.rated:
                    _log_unrated(ticker, opinion.explanation)
            return Answer(opinions, final=True)
        except AnswerError as problem:
            _log_unrated(", ".join(question.countries), str(problem))
            return Answer(question.unrated(str(problem)), final=True)
        except LaterError as problem:
            self._log_failed(str(problem))
            return Answer(question.unrated(str(problem)), final=False)
        except ServiceError as problem:
            reason = str(problem)
        except Exception as problem:
            # The library's own surprises; its texts may hold anything.
            reason = f"unexpected {type(problem).__name__}."
        self._log_failed(reason)
        return Answer(question.unrated(reason), final=True)

    async def rate_late(self, question: Question) -> dict[str, Opinion]:
        """Return the opinions, by ticker, on a question without a final answer; none if there is
        no answer within LATE_S of the article's arrival. Raises nothing.

        Newer articles displace it.
        """
        try:
            return await self._ask(question, late=True)
        except Exception as problem:
            logger.debug("No late rating of %a: %s", ", ".join(question.countries), problem)
            return {}

    async def try_keys(self) -> dict[str, str]:
        """Return what the service says against each key or the model, by the key's variable;
        nothing where it takes both. Costs nothing, since nothing is rated. Raises nothing.

        A key that the service does not know is not used any more.
        """
        said = await asyncio.gather(*(self._try(key) for key in self._keys))
        return {key.variable: reason for key, reason in zip(self._keys, said, strict=True)}

    async def _try(self, key: _Key) -> str:
        import anthropic

        try:
            async with asyncio.timeout(DEADLINE_S):
                await key.client.models.retrieve(self._model)
        except anthropic.APIStatusError as problem:
            # A key that may not do this may rate all the same.
            if problem.status_code == UNKNOWN_KEY:
                self._leave_out(key, problem)
            return _said(problem, key)
        except (TimeoutError, anthropic.APITimeoutError):
            return f"no answer within {DEADLINE_S:.0f} s."
        except anthropic.APIConnectionError as problem:
            return f"no connection: {one_line(problem)}"
        except Exception as problem:
            # The library's own surprises; its texts may hold anything.
            return f"unexpected {type(problem).__name__}."
        return ""

    def part(self) -> Part:
        """Return how the rating fares."""
        age_s = None if self._success_at is None else time.monotonic() - self._success_at
        return rating_part(
            idle=self._idle,
            keys=len(self._keys),
            refused=sorted(key.variable for key in self._keys if key.refused),
            problem=self._problem,
            success_age_s=age_s,
        )

    async def close(self) -> None:
        """Close the connections, which all keys share, in at most 1 s. Raises nothing."""
        if self._keys:
            what = "to close the connections to the rating service"
            await attempt(what, self._keys[0].client.close(), CLOSE_TIMEOUT_S)

    async def _ask(self, question: Question, *, late: bool) -> dict[str, Opinion]:
        """Ask, with one key after the other, until there is an answer or the time is over."""
        limit_s = LATE_S if late else DEADLINE_S
        until = question.arrived + limit_s
        said = f"no answer within {limit_s:.0f} s."
        pause = PAUSE_S
        try:
            async with asyncio.timeout(until - time.monotonic()):
                while True:
                    await self._until_a_key_is_free(until)
                    try:
                        async with self._places.turn(
                            Rank(late, question.tickers, -question.arrived)
                        ):
                            # What rests meanwhile is waited for above.
                            key = self._next_key()
                            opinions = await self._attempt(key, question) if key else None
                        if opinions is not None:
                            return opinions
                        continue
                    except TransientError as problem:
                        said = str(problem)
                    except TimeoutError:
                        pass
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE_S)
        except TimeoutError:
            raise LaterError(said) from None

    async def _attempt(self, key: _Key, question: Question) -> dict[str, Opinion] | None:
        """Ask once; return None where another key is to be asked."""
        # Loaded by the constructor already.
        import anthropic

        began = time.monotonic()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                message = await key.client.messages.create(
                    model=self._model,
                    max_tokens=MAX_TOKENS,
                    system=SYSTEM,
                    messages=[{"role": "user", "content": prompt(question)}],
                    thinking={"type": "disabled"},
                    output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
                )
        except anthropic.APIStatusError as problem:
            if problem.status_code == RATE_LIMITED:
                self._rest(key, problem)
                return None
            if problem.status_code in REFUSED_STATUSES:
                self._leave_out(key, problem)
                return None
            if problem.status_code in TRANSIENT_STATUSES:
                raise TransientError(_said(problem, key)) from None
            raise ServiceError(_said(problem, key)) from None
        except anthropic.APITimeoutError:
            raise TimeoutError from None
        except anthropic.APIConnectionError as problem:
            raise TransientError(f"no connection: {one_line(problem)}") from None
        except (anthropic.APIError, json.JSONDecodeError, UnicodeDecodeError):
            raise ServiceError("the answer is not a Messages API response.") from None
        try:
            opinions = opinions_of(message, question)
        except AnswerError:
            self._note_success(began)
            raise
        self._note_success(began)
        return opinions

    async def _until_a_key_is_free(self, until: float) -> None:
        """Wait for a key that may be used before `until` (time.monotonic()).

        Raises
        ------
        LaterError, ServiceError
            There is none; there will never be one.
        """
        while usable := [key.rests_until for key in self._keys if not key.refused]:
            free_at = min(usable)
            now = time.monotonic()
            if free_at <= now:
                return
            if free_at >= until:
                raise LaterError("every key is rate-limited.")
            await asyncio.sleep(free_at - now)
        raise ServiceError("the service refuses every key.")

    def _next_key(self) -> _Key | None:
        """Return the key whose turn it is; the next one's turn is after it."""
        now = time.monotonic()
        for position, key in enumerate(self._keys):
            if key.rests_until <= now and not key.refused:
                self._keys.append(self._keys.pop(position))
                return key
        return None

    def _rest(self, key: _Key, problem: "APIStatusError") -> None:
        told = problem.response.headers.get("retry-after", "")
        rest_s = REST_S
        if told.isascii() and told.isdigit():
            rest_s = min(max(float(told), 1.0), MAX_REST_S)
        now = time.monotonic()
        # Of requests that were under way together the first one tells.
        if key.rests_until <= now:
            logger.info("Pausing %s for %.0f s: %s", key.variable, rest_s, _said(problem, key))
        key.rests_until = max(key.rests_until, now + rest_s)

    def _leave_out(self, key: _Key, problem: "APIStatusError") -> None:
        if not key.refused:
            key.refused = True
            logger.error(
                "%s is not used until newshead is restarted: %s Check the key.",
                key.variable,
                _said(problem, key),
            )

    def _log_failed(self, reason: str) -> None:
        self._failed_at, self._problem = time.monotonic(), reason
        if self._outage.begins():
            logger.warning("Sentiment analysis is failing, articles are rated HOLD: %s", reason)

    def _note_success(self, began: float) -> None:
        self._success_at = time.monotonic()
        # An attempt from before the last failure proves nothing new.
        if began < self._failed_at:
            return
        self._problem = ""
        if self._outage.ends():
            logger.info("Sentiment analysis works again.")


def _log_unrated(tickers: str, reason: str) -> None:
    logger.warning("The article on %a is not rated: %s", tickers, reason.removeprefix(NOT_RATED))


def _keys(settings: Settings) -> list[_Key]:
    # It takes over a second to load: not for those who need no rating, such as the price
    # monitor's process and `--help`.
    import anthropic

    # They log requests, and what they raise as well; ANTHROPIC_LOG turns them on when loaded.
    for name in ("anthropic", "httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # A redirect would take the key along to another host.
    http_client = anthropic.DefaultAsyncHttpxClient(follow_redirects=False)
    names = [name for name in settings.variables() if name.startswith("ANTHROPIC_API_KEY")]
    variables = {getattr(settings, name.lower()): name for name in names}
    return [
        _Key(
            variables[key],
            anthropic.AsyncAnthropic(
                api_key=key,
                base_url=settings.anthropic_base_url,
                timeout=ATTEMPT_S,
                max_retries=0,
                http_client=http_client,
            ),
        )
        for key in settings.anthropic_keys
    ]


def _said(problem: "APIStatusError", key: _Key) -> str:
    """Return what the service said, in one line and without the key it was asked with."""
    body = problem.body
    error = body.get("error") if isinstance(body, dict) else None
    text = error.get("message") if isinstance(error, dict) else None
    if not isinstance(text, str) or not text:
        return f"the service answered {problem.status_code}."
    words = text.replace(key.client.api_key or "", "(the key)").rstrip(".")
    return f"the service answered {problem.status_code}: {folded(words, 200)}."
