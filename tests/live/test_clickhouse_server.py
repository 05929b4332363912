"""The test server itself: clickhouse-connect over HTTP, and the faults tests ask for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import clickhouse_connect
import clickhouse_server
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from clickhouse_server import ClickHouseServer
from deadlines import DEADLINE_S
from monitoring import fresh

from newshead.settings import Settings

PASSWORD = "pass 'wörd'"
ENVIRONMENT = os.environ | clickhouse_server.PYTHONPATH
HOSTILE = ["", "it's", 'a "b"', "\\", "\\'", "\\N", "\t\r\n\0", "☃ 中", "{x:String} %s", "--\n;"]


def connect(server: ClickHouseServer, password: str = PASSWORD, **options: Any) -> Client:
    return clickhouse_connect.get_client(
        host=server.host,
        port=server.port,
        username="default",
        password=password,
        autogenerate_session_id=False,
        tz_mode="aware",
        **{"send_receive_timeout": int(DEADLINE_S), **options},
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseServer]:
    with ClickHouseServer(tmp_path_factory.mktemp("clickhouse"), password=PASSWORD) as server:
        yield server


@pytest.fixture
def server(running: ClickHouseServer) -> Iterator[ClickHouseServer]:
    yield running
    running.clear_faults()


@pytest.fixture
def client(server: ClickHouseServer) -> Iterator[Client]:
    with connect(server) as client:
        yield client
        server.clear_faults()
        client.command("DROP TABLE IF EXISTS numbered")


def make_table(client: Client, settings: str = "") -> None:
    client.command(f"CREATE TABLE numbered (n UInt32) ENGINE = MergeTree ORDER BY n {settings}")


def make_deduplicating_table(client: Client) -> None:
    make_table(client, "SETTINGS non_replicated_deduplication_window = 1000")


def insert(client: Client, *numbers: int, token: str = "") -> None:
    settings = {"insert_deduplication_token": token} if token else {}
    client.insert("numbered", [[n] for n in numbers], ["n"], settings=settings)


def stored(client: Client) -> list[int]:
    return [n for (n,) in client.query("SELECT n FROM numbered ORDER BY n").result_rows]


def eventually(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def is_listening(server: ClickHouseServer) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((server.host, server.port)) == 0


class Background(threading.Thread):
    """Runs `call` beside the test; `result` is what it returned or raised."""

    def __init__(self, call: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self.result: object = None
        self.start()

    def run(self) -> None:
        try:
            self.result = self._call()
        except DatabaseError as error:
            self.result = error


@pytest.mark.parametrize("compress", [True, False, "lz4", "gzip"])
def test_rows_come_back_as_they_were_inserted(
    server: ClickHouseServer, compress: bool | str
) -> None:
    rows = [
        (1, datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC), "it's\n\t\0☃", 1.5),
        (2, datetime(2026, 7, 2, 3, 4, 5, 1000, tzinfo=UTC), None, None),
        *((n, datetime(2026, 1, 1, tzinfo=UTC), "x" * 300, -0.5) for n in range(3, 5000)),
    ]
    with connect(server, compress=compress) as client:
        client.command(
            "CREATE OR REPLACE TABLE mixed (n UInt32, at DateTime64(3), text Nullable(String), "
            "score Nullable(Float64)) ENGINE = MergeTree ORDER BY n"
        )
        summary = client.insert("mixed", rows, ["n", "at", "text", "score"])
        assert summary.written_rows == len(rows)
        assert client.query("SELECT * FROM mixed ORDER BY n").result_rows == rows


def test_parameters_reach_the_engine_unchanged(client: Client) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    sql = "SELECT {texts:Array(String)}, {none:Array(String)}, {at:DateTime64(3)} "
    parameters = {"texts": HOSTILE, "none": [], "at": at}
    assert client.query(sql, parameters=parameters).result_rows == [(HOSTILE, [], at)]
    for text in HOSTILE:
        assert client.query("SELECT {t:String}", parameters={"t": text}).result_rows == [(text,)]


def test_parameters_too_long_for_a_url_arrive_as_a_form(client: Client) -> None:
    texts = HOSTILE * 1000
    assert client.query("SELECT {t:Array(String)}", parameters={"t": texts}).result_rows == [
        (texts,)
    ]


def test_commands_return_what_the_statement_returns(client: Client) -> None:
    make_table(client)
    client.command("INSERT INTO numbered SELECT number FROM numbers({n:UInt8})", {"n": 3})
    assert client.command("SELECT count() FROM numbered") == 3
    assert client.command("SELECT n FROM numbered WHERE n > 5") == ""
    assert client.query("SELECT n FROM numbered LIMIT 0").column_names == ("n",)
    assert client.ping()


def test_an_engine_error_arrives_with_its_text_and_code(client: Client) -> None:
    with pytest.raises(DatabaseError, match="Unknown table expression identifier 'nope'") as caught:
        client.query("SELECT * FROM nope")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")


def test_a_wrong_password_is_refused(server: ClickHouseServer) -> None:
    with pytest.raises(DatabaseError, match="Authentication failed") as caught:
        connect(server, password="wrong")
    assert caught.value.code == 516


def test_a_setting_holds_for_its_own_request_only(server: ClickHouseServer, client: Client) -> None:
    sql = "SELECT getSetting('max_result_rows')"
    assert client.command(sql, settings={"max_result_rows": 77}) == 77
    assert client.command(sql) == 0
    assert [s.get("max_result_rows") for s in server.settings()[-2:]] == ["77", None]


def test_the_database_of_the_client_is_used(client: Client, server: ClickHouseServer) -> None:
    client.command("CREATE DATABASE IF NOT EXISTS other")
    with connect(server, database="other") as other:
        assert other.command("SELECT currentDatabase()") == "other"
    assert client.command("SELECT currentDatabase()") == "default"


def test_statements_are_listed_without_their_data(server: ClickHouseServer, client: Client) -> None:
    make_table(client)
    before = len(server.statements())
    insert(client, 1, 2)
    client.command("SELECT 7")
    assert server.statements()[before:] == [
        "DESCRIBE TABLE `numbered`\n FORMAT Native",
        "INSERT INTO `numbered` (`n`) FORMAT Native",
        "SELECT 7",
    ]


def test_two_inserts_with_one_token_are_stored_once(client: Client) -> None:
    make_deduplicating_table(client)
    insert(client, 1, token="first")
    insert(client, 2, token="first")
    insert(client, 3, token="second")
    assert stored(client) == [1, 3]


def test_a_dropped_answer_makes_the_client_resend_and_the_token_keeps_one_copy(
    server: ClickHouseServer, client: Client
) -> None:
    make_deduplicating_table(client)
    server.fault("drop_answer", match="INSERT", times=1)
    insert(client, 1, token="only")
    assert stored(client) == [1]
    assert [sql.startswith("INSERT") for sql in server.statements()[-3:]] == [True, True, False]


def test_a_dropped_answer_stores_twice_where_nothing_deduplicates(
    server: ClickHouseServer, client: Client
) -> None:
    make_table(client)
    server.fault("drop_answer", match="INSERT", times=1)
    insert(client, 1, token="only")
    assert stored(client) == [1, 1]


def test_a_refused_request_is_not_carried_out(server: ClickHouseServer, client: Client) -> None:
    make_table(client)
    server.fault("refuse", match="INSERT", times=2)
    with pytest.raises(OperationalError, match="Connection aborted"):
        insert(client, 1)
    assert stored(client) == []
    insert(client, 2)
    assert stored(client) == [2]


def test_an_error_on_demand_replaces_the_request(server: ClickHouseServer, client: Client) -> None:
    make_table(client)
    server.fault("error", match="INSERT", code=243, text="Cannot reserve. (NOT_ENOUGH_SPACE)")
    for _ in range(2):
        with pytest.raises(DatabaseError, match="Cannot reserve") as caught:
            insert(client, 1)
        assert (caught.value.code, caught.value.name) == (243, "NOT_ENOUGH_SPACE")
    server.clear_faults()
    assert stored(client) == []


def test_an_error_of_status_503_is_tried_again_by_queries(
    server: ClickHouseServer, client: Client
) -> None:
    server.fault("error", match="SELECT 8", times=2, code=209, text="(SOCKET_TIMEOUT)")
    assert client.query("SELECT 8").result_rows == [(8,)]


def test_the_oldest_fault_that_fits_applies_as_often_as_asked(
    server: ClickHouseServer, client: Client
) -> None:
    server.fault("error", match="'b'", times=2, code=1, text="older")
    server.fault("error", match="'b'", times=1, code=1, text="newer")
    assert client.command("SELECT 'c'") == "c"
    for text in ("older", "older", "newer"):
        with pytest.raises(DatabaseError, match=text):
            client.command("SELECT 'b'")
    assert client.command("SELECT 'b'") == "b"


def test_an_unknown_fault_is_refused(server: ClickHouseServer) -> None:
    with pytest.raises(ValueError, match="explode"):
        server.fault("explode")


def test_a_slow_request_is_carried_out_after_the_wait(
    server: ClickHouseServer, client: Client
) -> None:
    server.fault("slow", match="SELECT 5", seconds=0.5)
    begin = time.monotonic()
    assert client.command("SELECT 5") == 5
    assert time.monotonic() - begin >= 0.5


def test_a_hanging_request_delays_no_other_and_goes_on_when_cleared(
    server: ClickHouseServer, client: Client
) -> None:
    server.fault("hang", match="hanging")
    hanging = Background(lambda: client.command("SELECT 'hanging'"))
    eventually(lambda: server.statements()[-1] == "SELECT 'hanging'")
    with connect(server) as other:
        assert other.command("SELECT 1") == 1
    assert client.command("SELECT 2") == 2
    assert hanging.is_alive()
    server.clear_faults()
    hanging.join(DEADLINE_S)
    assert hanging.result == "hanging"
    assert server.statements().count("SELECT 'hanging'") == 1


def test_a_request_whose_client_left_while_it_hung_is_not_carried_out(
    server: ClickHouseServer, client: Client
) -> None:
    make_table(client)
    server.fault("hang", match="INSERT")
    with (
        connect(server, send_receive_timeout=1) as impatient,
        pytest.raises(OperationalError, match="timed out"),
    ):
        insert(impatient, 1)
    server.clear_faults()
    server.wait_until_idle()
    assert stored(client) == []


def test_the_server_is_idle_once_the_requests_of_those_who_left_are_done_too(
    server: ClickHouseServer, client: Client
) -> None:
    make_table(client)
    server.fault("slow", match="INSERT", seconds=2)
    with (
        connect(server, send_receive_timeout=1) as impatient,
        pytest.raises(OperationalError, match="timed out"),
    ):
        insert(impatient, 1)
    server.wait_until_idle()
    assert stored(client) == [1]


def test_a_long_query_in_the_engine_delays_no_other(
    server: ClickHouseServer, client: Client
) -> None:
    long = Background(lambda: client.command("SELECT sleep(2)"))
    eventually(lambda: server.statements()[-1] == "SELECT sleep(2)")
    assert client.command("SELECT 1") == 1
    assert long.is_alive()
    long.join(DEADLINE_S)
    assert long.result == 0


@pytest.mark.parametrize("end", [ClickHouseServer.stop, ClickHouseServer.kill])
def test_data_port_and_clients_outlive_a_restart(
    tmp_path: Path, end: Callable[[ClickHouseServer], None]
) -> None:
    with ClickHouseServer(tmp_path) as server, connect(server, password="") as client:
        port = server.port
        make_table(client)
        insert(client, 1)
        end(server)
        with pytest.raises(OperationalError, match="Connection refused"):
            stored(client)
        assert not client.ping()
        server.start()
        assert server.port == port
        assert stored(client) == [1]


def leave_a_row(server: ClickHouseServer) -> None:
    with connect(server, password="") as client:
        client.command("CREATE TABLE News.left (n UInt8) ORDER BY n AS SELECT 1 AS n")


def leave_a_fault(server: ClickHouseServer) -> None:
    server.fault("refuse")


@pytest.mark.parametrize("leave", [leave_a_row, leave_a_fault, ClickHouseServer.kill])
def test_however_a_test_leaves_the_server_the_next_one_has_it_fresh(
    tmp_path: Path, leave: Callable[[ClickHouseServer], None]
) -> None:
    with ClickHouseServer(tmp_path) as server:
        settings = Settings(clickhouse_host=server.host, clickhouse_port=server.port)
        with connect(server, password="") as client:
            client.command("CREATE DATABASE News")
        leave(server)
        with fresh(server, settings), connect(server, password="") as client:
            assert client.command("EXISTS DATABASE News") == 0


def test_the_server_is_on_utc_wherever_the_tests_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with ClickHouseServer(tmp_path) as server, connect(server, password="") as client:
        assert client.command("SELECT timezone()") == "UTC"


def test_without_a_user_name_one_is_default(tmp_path: Path) -> None:
    with ClickHouseServer(tmp_path) as server:
        clickhouse_connect.get_client(host=server.host, port=server.port).close()


def test_a_server_that_cannot_start_says_so(server: ClickHouseServer, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="did not start"):
        ClickHouseServer(tmp_path, port=server.port).start()


def test_sigterm_ends_the_process_at_once_in_the_middle_of_a_query(tmp_path: Path) -> None:
    command = [sys.executable, clickhouse_server.__file__, "--path", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            assert process.stdout is not None
            server = ClickHouseServer(tmp_path, port=int(process.stdout.readline().split()[-1]))
            client = connect(server, password="")
            query = Background(
                lambda: client.command(
                    "SELECT sleepEachRow(1) FROM numbers(100) SETTINGS max_block_size = 1"
                )
            )
            eventually(lambda: "sleepEachRow" in server.statements()[-1])
            process.terminate()
            assert process.wait(DEADLINE_S) == 0
        finally:
            process.kill()
    query.join(DEADLINE_S)
    assert isinstance(query.result, OperationalError)


def test_the_server_does_not_outlive_its_parent(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, clickhouse_server\n"
        "server = clickhouse_server.ClickHouseServer(pathlib.Path(sys.argv[1]))\n"
        "server.start()\n"
        "print(server.port, flush=True)\n"
        "input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    folder = Path(clickhouse_server.__file__).parent
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=folder, stdin=pipe, stdout=pipe, text=True, env=ENVIRONMENT
    ) as parent:
        try:
            assert parent.stdout is not None
            server = ClickHouseServer(tmp_path, port=int(parent.stdout.readline()))
            assert server.statements() == []
        finally:
            parent.kill()
    eventually(lambda: not is_listening(server))
