"""Alpaca's news stream, whose messages are arrays of items."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from websockets.asyncio.client import ClientConnection

from newshead.news.alpaca_message import Word, parse_item, parse_items
from newshead.news.message import Article, NoArticleError
from newshead.news.stream import OPEN_TIMEOUT_S, Stream, StreamError
from newshead.settings import Settings

SUBSCRIBE: Final = json.dumps({"action": "subscribe", "news": ["*"]})
ITEMS_AT_ONCE: Final = 50
# The key is wrong, or its account has no news.
REFUSED_CODES: Final = (402, 409)
# What a client did that was done already.
HARMLESS_CODES: Final = (403,)


class AlpacaStream(Stream):
    """Alpaca's stream, whose keys go along as headers."""

    name = "alpaca"
    title = "Alpaca's news stream"
    key_names = "ALPACA_API_KEY and ALPACA_API_SECRET"

    def __init__(self, settings: Settings, take: Callable[[Article], None]) -> None:
        """`take` is called with every article; it must not block."""
        key, secret = settings.alpaca_api_key, settings.alpaca_api_secret
        super().__init__(
            settings.alpaca_stream_url,
            [key, secret],
            take,
            headers={"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": secret},
        )

    async def _open(self, connection: ClientConnection) -> None:
        # The server speaks first; one that does not get so far is of no use.
        await asyncio.sleep(OPEN_TIMEOUT_S)
        if not self._is_open:
            await connection.close(reason="no subscription came about")

    async def _read(
        self, connection: ClientConnection, message: str | bytes, received_at: float
    ) -> None:
        received = datetime.now(UTC)
        wrong: NoArticleError | None = None
        for number, item in enumerate(parse_items(message), 1):
            if number % ITEMS_AT_ONCE == 0:
                # Other work of the loop gets its turn.
                await asyncio.sleep(0)
            try:
                read = parse_item(item, received, received_at)
            except NoArticleError as problem:
                wrong = problem
                continue
            if isinstance(read, Word):
                await self._obey(connection, read)
            else:
                self._take(read)
        if wrong is not None:
            raise wrong

    async def _obey(self, connection: ClientConnection, word: Word) -> None:
        """Do what a word of the server asks for.

        Raises
        ------
        SourceRefusedError
            It refuses the keys.
        StreamError
            It serves no news on this connection.
        """
        match word:
            case Word("success", _, "authenticated"):
                await connection.send(SUBSCRIBE)
            case Word("subscription") if not self._is_open:
                self._note_open()
            case Word("error", code) if code in REFUSED_CODES:
                raise self._refused(self._without_key(f"{code}: {word.text}"))
            case Word("error", code) if code not in HARMLESS_CODES:
                raise StreamError(f"error {code}: {word.text}")
