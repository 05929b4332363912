"""The view *Results*: what prices did after the alerts of some days, as the page shows it."""

import asyncio
import csv
import functools
import io
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from dashboard import queries, wire
from dashboard.statements import BEGINS
from newshead.core import results, results_text
from newshead.core.results import Case, Line
from newshead.core.samples import Interval
from newshead.core.times import NEW_YORK
from newshead.database.connection import Database
from newshead.database.results import windows
from newshead.loop import off_loop

PAGE: Final = Path(__file__).with_name("static") / "results.html"
# What is shown unless days are asked for, and what may be asked for.
DAYS: Final = 30
MAX_DAYS: Final = 100
# So many of the best and of the worst are listed.
LISTED: Final = 10


class Found(NamedTuple):
    """The windows of some days, how many others had too few prices, and the sessions' begins."""

    cases: list[Case]
    unusable: int
    sessions: Sequence[Sequence[Any]]


Read = Callable[[Callable[[Database], Found]], Awaitable[Found]]


class Results:
    """The view's routes; one answer is computed after the other, off the loop."""

    def __init__(self, read: Read) -> None:
        """
        Parameters
        ----------
        read
            Gives what a query finds, off the loop; answers 503 where the database cannot be read.
        """
        self._read = read
        self._turn = asyncio.Lock()

    @property
    def routes(self) -> list[Route]:
        """What is to be served."""
        return [
            Route("/results", self._page),
            Route("/results/figures", self._figures),
            Route("/results/{what}.csv", self._csv),
        ]

    async def _page(self, _request: Request) -> Response:
        return FileResponse(PAGE)

    async def _figures(self, request: Request) -> Response:
        days = _days(request)
        return Response(
            await self._made(days, functools.partial(_figures, days)),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def _csv(self, request: Request) -> Response:
        what = request.path_params["what"]
        if what not in results_text.FILES:
            names = ", ".join(f"{name}.csv" for name in results_text.FILES)
            raise HTTPException(404, f"There are {names}.")
        return Response(
            await self._made(_days(request), functools.partial(_csv_text, what)),
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="newshead-results-{what}.csv"',
                "Cache-Control": "no-store",
            },
        )

    async def _made(self, days: tuple[date, date], make: Callable[[Found], str]) -> str:
        async with self._turn:
            found = await self._read(functools.partial(find, days))
            return await off_loop(make, found)


def find(days: tuple[date, date], database: Database) -> Found:
    """Return what is stored of the days from the first to the last. Blocks."""
    ask = functools.partial(queries.read_if_there, database)
    now_s = queries.clock(database).timestamp()
    return Found(*results.cases(windows(ask, *days, now_s)), ask(BEGINS))


def _days(request: Request) -> tuple[date, date]:
    """Return the first and the last day that a request asks for with `since` and `until`."""
    today = datetime.now(NEW_YORK).date()
    try:
        until = _day(request, "until") or today
        since = _day(request, "since") or until - timedelta(days=DAYS - 1)
    except ValueError:
        raise HTTPException(400, "since and until must be days such as 2026-11-24.") from None
    if not 0 <= (until - since).days < MAX_DAYS:
        raise HTTPException(400, f"until must be since or one of the {MAX_DAYS} days from it on.")
    return since, until


def _day(request: Request, name: str) -> date | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    found = date.fromisoformat(text)
    if not 1970 < found.year < 2100:
        raise ValueError
    return found


def _figures(days: tuple[date, date], found: Found) -> str:
    cases = found.cases
    main = results.main_measure(cases)
    ranked = results.ranked(cases)
    rows = [
        {
            "ticker": case.ticker,
            "at": case.at_s,
            "price": case.price,
            "rise": case.rise_pct,
            "change": case.changes_pct[main],
            "link": _link(case, found.sessions),
        }
        for case in ranked
    ]
    return wire.compact(
        {
            "days": [str(day) for day in days],
            "summary": results_text.summary(cases, found.unusable) if cases else "",
            "main": main,
            "groups": [_group(line) for line in results.lines(cases)],
            "path": [(step.seconds, *step.changes) for step in results.paths(cases)],
            "alerts": rows,
            "listed": min(LISTED, -(-len(rows) // 2)),
            "method": results_text.METHOD,
            "too_few": results_text.TOO_FEW,
        }
    )


def _group(line: Line) -> dict[str, Any]:
    numbers = line.figures._asdict()
    return {
        "group": line.group,
        "grouping": line.grouping,
        "value": line.value,
        "measure": line.measure,
        "enough": line.figures.enough,
        **{
            name: list(value) if isinstance(value, Interval) else value
            for name, value in numbers.items()
        },
    }


def _link(case: Case, sessions: Sequence[Sequence[Any]]) -> str:
    """Return the address at which the page shows a window; empty where its session is unknown."""
    number = bisect_right(sessions, case.first_s, key=lambda session: session[1])
    if not number:
        return ""
    return f"/#{queries.session_key(sessions[number - 1][0])}/{quote(case.ticker, safe='')}"


def _csv_text(what: str, found: Found) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(results_text.FILES[what](found.cases))
    return text.getvalue()
