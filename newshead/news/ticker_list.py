"""The ticker list `News.float_list`, refreshed from a CSV file or from Finviz Elite's export.

Columns are found by the names in the export's header line, as public examples of it show them:
`No.,Ticker,Company,Sector,Industry,Country,Market Cap,P/E,Shares Float,…,Price,Change,Volume`.
`Market Cap` (USD) and `Shares Float` (shares) are plain numbers in millions there, or come with
their unit (`150.00M`, `2.90T`), `Volume` is in shares, and what is unknown is empty or `-`. Finviz
has published no specification of it. A token that has expired is answered with status 200 and a
login page, or nothing at all.
"""

import asyncio
import csv
import io
import logging
import math
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from newshead.core.tickers import parse_ticker
from newshead.database.connection import DATABASE_ERRORS, Database, one_line
from newshead.database.queries import listed_tickers
from newshead.database.store import replace_ticker_list
from newshead.database.tables import ListedStock
from newshead.loop import off_loop
from newshead.settings import ConfigurationError, Settings

if TYPE_CHECKING:
    import httpx2

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_S: Final = 30.0
# All 11,000 stocks with all 150 columns of the export are under 20 MB.
MAX_BYTES: Final = 50_000_000
MAX_REDIRECTS: Final = 3
MAX_VOLUME: Final = 2**64 - 1
UNITS: Final = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
# A list that is shorter than this part of the present one is most likely not whole.
LEAST_PART: Final = 0.5


class ListError(Exception):
    """There is no usable list; the text says why and what to do, without the token."""


class TickerList(NamedTuple):
    """The stocks that were read, and the number of rows left out for want of a valid ticker."""

    stocks: Sequence[ListedStock]
    left_out: int


async def refresh(settings: Settings, database: Database, *, force: bool = False) -> str:
    """Put the configured list into the database; the log says what was done, or why not. Return
    why the old list stays, or nothing.

    Raises nothing.

    Parameters
    ----------
    settings
        `ticker_list_csv` is the source, or else `finviz_export_url`.
    database
        Nobody else's: it is connected for this and closed again.
    force
        Take a list too that is much shorter than the present one.
    """
    source = source_of(settings)
    if source is None:
        logger.warning("No source for the ticker list is configured; News.float_list is unchanged.")
        return "no source for the list is configured."
    try:
        found = await read(settings)
        await off_loop(_store, database, found.stocks, force)
    except ListError as problem:
        logger.error("No ticker list from %s: %s News.float_list is unchanged.", source, problem)
        return f"no ticker list from {source}: {problem}"
    except (*DATABASE_ERRORS, ConfigurationError) as problem:
        logger.error(
            "The ticker list cannot be stored, News.float_list is unchanged: %s", one_line(problem)
        )
        return f"the ticker list cannot be stored: {one_line(problem)}"
    logger.info(
        "Replaced the ticker list from %s: %d stocks; skipped %d rows without a valid ticker.",
        source,
        len(found.stocks),
        found.left_out,
    )
    return ""


def source_of(settings: Settings) -> str | None:
    """Return where the configured list is, without the token; None where none is configured."""
    if settings.ticker_list_csv is not None:
        return str(settings.ticker_list_csv)
    return "Finviz" if settings.finviz_export_url else None


async def read(settings: Settings) -> TickerList:
    """Return the stocks of the configured list.

    Raises
    ------
    ListError
        There is no usable list.
    """
    content = (
        await off_loop(_read, settings.ticker_list_csv)
        if settings.ticker_list_csv is not None
        else await _fetch(settings.finviz_export_url)
    )
    return await off_loop(parse, content)


def parse(content: bytes) -> TickerList:
    """Return the stocks in a file of Finviz Elite's export; of a ticker that comes twice, the last.

    Raises
    ------
    ListError
        It is not such a file, or contains no stock.
    """
    text = content.decode("utf-8-sig", errors="replace").lstrip()
    if not text:
        raise ListError("it is empty; is the token still valid?")
    if text.startswith("<"):
        raise ListError("it is a web page, not a CSV file; is the token still valid?")
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    stocks: dict[str, ListedStock] = {}
    left_out = 0
    try:
        if "Ticker" not in (reader.fieldnames or ()):
            raise ListError("its header has no Ticker column.")
        for row in reader:
            ticker = parse_ticker(row["Ticker"])
            if ticker is None:
                left_out += 1
            else:
                stocks[ticker] = _stock(ticker, row)
    except csv.Error as problem:
        raise ListError(f"it is not a CSV file ({problem}).") from None
    if not stocks:
        raise ListError("it contains no stock.")
    return TickerList(list(stocks.values()), left_out)


def _stock(ticker: str, row: dict[str, str | None]) -> ListedStock:
    def text(column: str) -> str:
        return (row.get(column) or "").strip()

    def number(column: str, unit: float = 1.0) -> float:
        value = text(column).replace(",", "").upper()
        if value[-1:] in UNITS:
            value, unit = value[:-1], UNITS[value[-1]]
        try:
            found = float(value) * unit
        except ValueError:
            return 0.0
        return found if math.isfinite(found) and found >= 0 else 0.0

    return ListedStock(
        ticker=ticker,
        company_name=text("Company"),
        sector=text("Sector"),
        industry=text("Industry"),
        country=text("Country"),
        market_cap=round(number("Market Cap", UNITS["M"]), 2),
        float_shares=round(number("Shares Float", UNITS["M"]), 2),
        price=number("Price"),
        volume=min(int(number("Volume")), MAX_VOLUME),
    )


def _store(database: Database, stocks: Sequence[ListedStock], force: bool) -> None:
    database.connect()
    try:
        present = len(listed_tickers(database))
        if len(stocks) < LEAST_PART * present and not force:
            raise ListError(
                f"it has {len(stocks)} stocks, the present list {present}: it is most likely not "
                "whole. Start with --force-list to take it."
            )
        replace_ticker_list(database, stocks)
    finally:
        database.close()


def _read(path: Path) -> bytes:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ListError("it is not a file; check TICKER_LIST_CSV.")
        if state.st_size > MAX_BYTES:
            raise ListError(f"it is over {MAX_BYTES:,} bytes.")
        return path.read_bytes()
    except OSError as problem:
        raise ListError(f"{problem.strerror}; check TICKER_LIST_CSV.") from None


async def _fetch(address: str) -> bytes:
    # With a list from a file, or none, it is not needed.
    import httpx2

    # It logs every address, and with it the token.
    for name in ("httpx2", "httpcore2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        start = httpx2.URL(address)
        # Plain HTTP is for a server on this machine.
        if start.scheme != "https" and start.host not in ("127.0.0.1", "::1", "localhost"):
            raise ListError(
                "its token must not be sent unencrypted; FINVIZ_EXPORT_URL needs https."
            )
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            return await _download(start)
    except TimeoutError:
        raise ListError(f"it timed out after {FETCH_TIMEOUT_S:.0f} s.") from None
    except httpx2.InvalidURL:
        raise ListError("FINVIZ_EXPORT_URL is not a valid URL.") from None
    except httpx2.HTTPError as problem:
        raise ListError(f"the connection failed: {one_line(problem)}") from None


async def _download(start: "httpx2.URL") -> bytes:
    import httpx2

    async def keep_to_start(request: httpx2.Request) -> None:
        if (request.url.scheme, request.url.netloc) != (start.scheme, start.netloc):
            raise ListError(
                f"it redirects to {request.url.scheme}://{request.url.host}, which must not "
                "receive the token; check FINVIZ_EXPORT_URL."
            )

    async with (
        httpx2.AsyncClient(
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            timeout=FETCH_TIMEOUT_S,
            event_hooks={"request": [keep_to_start]},
        ) as client,
        client.stream("GET", start) as response,
    ):
        if response.status_code != httpx2.codes.OK:
            raise ListError(
                f"it answered with HTTP status {response.status_code}; check FINVIZ_EXPORT_URL."
            )
        content = bytearray()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_BYTES:
                raise ListError(f"it is over {MAX_BYTES:,} bytes.")
        return bytes(content)
