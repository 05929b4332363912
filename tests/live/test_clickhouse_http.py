"""The embedded engine read by other processes: with clickhouse-connect, as they do."""

import logging
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError as EngineError
from monitoring import connected
from watching import write_alerts, write_news, write_part, write_prices, write_status

from clickhouse_manager import ClickHouseManager
from dashboard import earlier, queries, results
from dashboard.statements import PAGE_STATEMENTS
from newshead import listening
from newshead.core.times import NEW_YORK
from newshead.database import connection
from newshead.database.http import (
    LOOPBACK,
    READERS_FILE,
    USER,
    basic_authorization,
    engine_served,
    readers_environment,
)
from newshead.loop import off_loop
from newshead.settings import Settings

TODAY = datetime.now(NEW_YORK).date()


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Of the process that has the engine."""
    return Settings(clickhouse_path=tmp_path / "clickhouse")


def served(own: Settings) -> AbstractAsyncContextManager[dict[str, str]]:
    """The engine served to the page's and the push's statements."""
    return engine_served(own, PAGE_STATEMENTS, queries.READ_SETTINGS)


@pytest.fixture
async def reading(own: Settings) -> AsyncIterator[Settings]:
    """Of a process that reads it."""
    async with served(own) as environment:
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


async def test_a_command_of_the_same_user_finds_how_to_read_it_while_it_is_served(
    own: Settings,
) -> None:
    kept = own.clickhouse_path / READERS_FILE
    # What a killed newshead left, for others to read.
    own.clickhouse_path.mkdir()
    kept.write_text("{}")
    assert readers_environment(own) == {}
    async with served(own) as environment:
        assert readers_environment(own) == environment
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert not kept.exists()
    assert readers_environment(own) == {}


async def test_everything_that_readers_ask_is_answered(own: Settings, reading: Settings) -> None:
    def read() -> None:
        with connected(own) as owner, connected(reading) as reader:
            owner.create_tables()
            write_news(owner, "ABCD", "news")
            write_prices(owner, "ABCD", [2.0, 2.0, 2.0, 2.2])
            write_alerts(owner, "ABCD")
            write_status(owner)
            write_part(owner, "ibkr", "ok")
            queries.clock(reader)
            for ask in (
                queries.status,
                lambda database: queries.parts(database)[1],
                queries.marks,
                queries.cards,
                lambda database: [a._replace(age_s=0) for a in queries.first_alerts(database)],
                earlier.sessions,
                lambda database: earlier.windows(database, session="20261124T090000Z"),
                lambda database: earlier.windows(database, ticker="ABCD"),
                lambda database: results.find((TODAY, TODAY), database),
            ):
                assert ask(reader) == ask(owner)

    await off_loop(read)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO News.news_alert (ticker) VALUES ('ABCD')",
        "DROP TABLE News.news_alert",
        "CREATE DATABASE other",
        "SET readonly = 0",
        "SELECT * FROM file('/etc/passwd', 'LineAsString')",
        "SELECT 1 INTO OUTFILE '/tmp/newshead-outfile'",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "KILL QUERY WHERE 1",
        "SELECT sleep(3)",
        f"{queries.CLOCK}; DROP TABLE News.news_alert",
        f"{queries.CLOCK} FORMAT CSV",
    ],
)
async def test_readers_ask_newsheads_statements_and_no_others(
    own: Settings, reading: Settings, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def attempt() -> None:
        with connected(own) as owner, connected(reading) as reader:
            owner.create_tables()
            for _ in range(3):
                with pytest.raises(EngineError) as refused:
                    reader.client.command(statement)
                assert refused.value.code == 497
            assert owner.client.command("EXISTS TABLE News.news_alert") == 1

    await off_loop(attempt)
    [line] = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
    assert "a statement that is none of newshead's" in line


async def test_a_statement_that_got_through_could_change_nothing(own: Settings) -> None:
    hostile = {
        "INSERT INTO News.news_alert (ticker) VALUES ('ABCD')": 164,
        "SELECT * FROM file('/etc/passwd', 'LineAsString')": 164,
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')": 164,
        "SET readonly = 0": 164,
        "SET max_threads = 7": 164,
        "SELECT count() FROM numbers(100000000000) WHERE NOT ignore(sipHash64(number))": 159,
    }

    async with engine_served(own, hostile, {"max_execution_time": 1}) as environment:

        def attempt() -> None:
            with connected(own) as owner:
                owner.create_tables()
            with connected(Settings.from_environment({**environment})) as reader:
                for statement, code in hostile.items():
                    with pytest.raises(EngineError) as refused:
                        reader.client.command(statement)
                    assert refused.value.code == code, statement

        await off_loop(attempt)


async def test_readers_are_bound_by_the_limits_they_ask_for_themselves(reading: Settings) -> None:
    def read() -> None:
        with connected(reading) as reader:
            found = reader.client.server_settings
            for name, value in queries.READ_SETTINGS.items():
                assert found[name].value == str(value)
                assert found[name].readonly

    await off_loop(read)


async def test_a_thousand_silent_connections_keep_no_reader_out(
    reading: Settings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(listening, "REQUEST_S", 1.0)
    address = (LOOPBACK, reading.clickhouse_port)

    def ask() -> None:
        with ExitStack() as stack, connected(reading) as early:
            strangers = []
            for number in range(1000):
                stranger = stack.enter_context(socket.create_connection(address, timeout=10))
                strangers.append(stranger)
                if number % 2:
                    stranger.sendall(b"POST / HTTP/1.1\r\nX: ")
            assert queries.status(early) is None
            with connected(reading) as late:
                assert queries.status(late) is None
            # Who sends a byte now and then is cut off as well.
            for stranger in strangers:
                while stranger.recv(4096):
                    pass
            assert queries.status(early) is None

    await off_loop(ask)
    lines = [r.getMessage() for r in caplog.records if "turned away" in r.getMessage()]
    assert sorted(line.split(": ")[1].split(" (")[0] for line in lines) == [
        "a request without the right password",
        "more than 32 connections at once",
        "no request within 1 s",
    ]


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
    password = basic_authorization(USER, reading.clickhouse_password)
    known = f"POST / HTTP/1.1\r\nAuthorization: {password}\r\n".encode()

    def ask() -> None:
        with connected(reading) as reader:
            for rubbish in (
                b"\0\xff\n\n",
                b"GET / HTTP/1.1\r\n\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                known + b"Content-Length: x\r\n\r\n",
                known + b"Content-Length: -1\r\n\r\n",
                known + b"Content-Length: 9999999999\r\n\r\n",
                b"POST / HTTP/1.1\r\nAuthorization: Basic \xff\r\n\r\n",
            ):
                address = (LOOPBACK, reading.clickhouse_port)
                with socket.create_connection(address, timeout=10) as stranger:
                    stranger.sendall(rubbish)
                    stranger.shutdown(socket.SHUT_WR)
                    while stranger.recv(4096):
                        pass
            assert queries.status(reader) is None

    await off_loop(ask)


async def test_at_the_end_readers_are_cut_off_and_the_engine_is_free(own: Settings) -> None:
    async with served(own) as environment:
        reader = ClickHouseManager(Settings.from_environment({**environment}))
        await off_loop(reader.connect)
        await off_loop(queries.status, reader)
    with pytest.raises(EngineError):
        await off_loop(queries.status, reader)
    reader.close()
    # The engine takes one folder at a time: another one is refused while it runs.
    elsewhere = replace(own, clickhouse_path=own.clickhouse_path / "other")
    with connected(elsewhere):
        pass
