"""The embedded engine read by other processes: with clickhouse-connect, as they do."""

import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError as EngineError
from monitoring import connected
from watching import write_news, write_prices

from clickhouse_manager import ClickHouseManager
from dashboard import queries
from newshead.database import connection
from newshead.database.http import LOOPBACK, engine_served
from newshead.loop import off_loop
from newshead.settings import Settings


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Of the process that has the engine."""
    return Settings(clickhouse_path=tmp_path / "clickhouse")


@pytest.fixture
async def reading(own: Settings) -> AsyncIterator[Settings]:
    """Of a process that reads it."""
    async with engine_served(own) as environment:
        yield Settings.from_environment({**environment})


async def test_readers_find_what_the_owner_wrote(own: Settings, reading: Settings) -> None:
    def read() -> None:
        with connected(own) as owner, connected(reading) as reader:
            # No table is there yet.
            assert queries.status(reader) is None
            owner.create_tables()
            write_news(owner, "ABCD", 'It\'s a \\ "headline"\n')
            write_prices(owner, "ABCD", [2.0, 2.0, 2.0, 2.1])
            # So many that the client sends them as a form.
            [card] = queries.cards(reader, ["ABCD", *(f"T{n}'\\" for n in range(2000))])
            [same] = queries.cards(owner, ["ABCD"])
            assert card == same
            assert len(card.points) == 4

    await off_loop(read)


async def test_readers_can_change_nothing(own: Settings, reading: Settings) -> None:
    def attempt() -> None:
        with connected(own) as owner, connected(reading) as reader:
            owner.create_tables()
            for statement in (
                "INSERT INTO News.news_alert (ticker) VALUES ('ABCD')",
                "DROP TABLE News.news_alert",
                "CREATE DATABASE other",
                "SET readonly = 0",
            ):
                with pytest.raises(EngineError) as refused:
                    reader.client.command(statement)
                assert refused.value.code == 164, statement

    await off_loop(attempt)


async def test_a_setting_holds_for_its_own_query_only(reading: Settings) -> None:
    def read() -> None:
        with connected(reading) as reader:

            def threads(**settings: int) -> object:
                return reader.client.command("SELECT getSetting('max_threads')", settings=settings)

            usual = threads()
            assert threads(max_threads=7) == 7
            assert threads() == usual != 7

    await off_loop(read)


async def test_who_does_not_know_the_password_is_told_nothing(reading: Settings) -> None:
    def ask() -> None:
        with pytest.raises(connection.DatabaseError, match="516"):
            ClickHouseManager(replace(reading, clickhouse_password="guessed")).connect()
        url = f"http://{LOOPBACK}:{reading.clickhouse_port}/?query=SELECT+1"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, data=b"")
        with refused.value:
            assert refused.value.code == 403

    await off_loop(ask)


async def test_rubbish_disturbs_no_reader(reading: Settings) -> None:
    def ask() -> None:
        with connected(reading) as reader:
            for rubbish in (
                b"\0\xff\n\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                b"POST / HTTP/1.1\r\nAuthorization: Basic \xff\r\n\r\n",
            ):
                address = (LOOPBACK, reading.clickhouse_port)
                with socket.create_connection(address, timeout=10) as stranger:
                    stranger.sendall(rubbish)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(4096):
                        pass
            assert reader.client.command("SELECT 1") == 1

    await off_loop(ask)


async def test_at_the_end_readers_are_cut_off_and_the_engine_is_free(own: Settings) -> None:
    async with engine_served(own) as environment:
        reader = ClickHouseManager(Settings.from_environment({**environment}))
        await off_loop(reader.connect)
        await off_loop(reader.client.command, "SELECT 1")
    with pytest.raises(EngineError):
        await off_loop(reader.client.command, "SELECT 1")
    reader.close()
    # The engine takes one folder at a time: another one is refused while it runs.
    elsewhere = replace(own, clickhouse_path=own.clickhouse_path / "other")
    with connected(elsewhere):
        pass
