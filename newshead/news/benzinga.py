"""Benzinga's news stream."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection

from newshead.news.message import Article, parse_message
from newshead.news.stream import Stream
from newshead.settings import Settings

TEXT_PING_EVERY_S: Final = 30.0


class BenzingaStream(Stream):
    """Benzinga's stream, whose key stands in its address."""

    name = "benzinga"
    title = "the news stream"
    key_names = "BENZINGA_API_KEY"
    pongs = ("pong",)

    def __init__(self, settings: Settings, take: Callable[[Article], None]) -> None:
        """`take` is called with every article; it must not block."""
        key = settings.benzinga_api_key
        super().__init__(
            _with_token(settings.benzinga_stream_url, key),
            [key],
            take,
            replay=settings.benzinga_replay,
        )
        self._text_ping = settings.benzinga_text_ping

    async def _open(self, connection: ClientConnection) -> None:
        self._note_open()
        if self._replay.wanted:
            self._replay.asked(time.monotonic())
            await connection.send("replay")
        while self._text_ping:
            await asyncio.sleep(TEXT_PING_EVERY_S)
            await connection.send("ping")

    async def _read(
        self, _connection: ClientConnection, message: str | bytes, received_at: float
    ) -> None:
        article = parse_message(message, datetime.now(UTC), received_at)
        self._replay.brought()
        self._take(article._replace(replayed=self._replay.covers(time.monotonic())))


def _with_token(address: str, key: str) -> str:
    parts = urlsplit(address)
    query = [pair for pair in parse_qsl(parts.query) if pair[0] != "token"]
    return urlunsplit(parts._replace(query=urlencode([*query, ("token", key)]), fragment=""))
