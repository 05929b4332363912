"""The environment variables: their defaults, their checks and `.env.example`."""

import os
from datetime import time
from pathlib import Path

import pytest
from dotenv import dotenv_values

from newshead.settings import ConfigurationError, Settings, misspelt

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
VARIABLES = [
    "IBKR_HOST",
    "IBKR_PORT",
    "IBKR_CLIENT_ID",
    "IBKR_MARKET_DATA_TYPE",
    "IBKR_REFERENCE",
    "FOLLOW_UP",
    "CLICKHOUSE_HOST",
    "CLICKHOUSE_PORT",
    "CLICKHOUSE_USER",
    "CLICKHOUSE_PASSWORD",
    "CLICKHOUSE_SECURE",
    "CLICKHOUSE_PATH",
    "NEWS_SOURCES",
    "BENZINGA_API_KEY",
    "BENZINGA_STREAM_URL",
    "BENZINGA_TEXT_PING",
    "BENZINGA_REPLAY",
    "ALPACA_API_KEY",
    "ALPACA_API_SECRET",
    "ALPACA_STREAM_URL",
    "WIRE_FEEDS",
    "WIRE_LANGUAGES",
    "NEWS_MAX_TICKERS",
    "NEWS_SKIP",
    "ANTHROPIC_API_KEY",
    *(f"ANTHROPIC_API_KEY{number}" for number in range(2, 10)),
    "ANTHROPIC_BASE_URL",
    "SENTIMENT_MODEL",
    "HOLD_STEERING",
    "TICKER_LIST_CSV",
    "FINVIZ_EXPORT_URL",
    "SESSION_ROLL",
    "DASHBOARD_HOST",
    "DASHBOARD_PORT",
    "DASHBOARD_PASSWORD",
    "ALERT_URLS",
    "ALERT_SILENCE",
    "METRICS_PORT",
    "RECORD_FOLDER",
    "RECORD_MAX_GB",
    "ALLOW_UNENCRYPTED_KEYS",
]


def write_env(text: str) -> None:
    """Writes `.env` into the folder the test runs in."""
    Path(".env").write_text(text, encoding="utf-8")


def test_without_any_variable_the_defaults_hold() -> None:
    settings = Settings.from_environment()
    assert settings == Settings(
        ibkr_host="127.0.0.1",
        ibkr_port=7497,
        ibkr_client_id=10,
        ibkr_market_data_type=1,
        ibkr_reference="SPY",
        clickhouse_host="",
        clickhouse_port=8123,
        clickhouse_user="default",
        clickhouse_password="",
        clickhouse_secure=False,
        clickhouse_path=Path("data/clickhouse"),
        news_sources=("benzinga",),
        benzinga_api_key="",
        benzinga_stream_url="wss://api.benzinga.com/api/v1/news/stream",
        benzinga_text_ping=False,
        benzinga_replay=True,
        alpaca_api_key="",
        alpaca_api_secret="",
        alpaca_stream_url="wss://stream.data.alpaca.markets/v1beta1/news",
        wire_feeds=(
            "https://www.globenewswire.com/RssFeed/orgclass/1/feedTitle/"
            "GlobeNewswire%20-%20News%20about%20Public%20Companies",
            "https://www.prnewswire.com/rss/news-releases-list.rss",
            "https://www.accessnewswire.com/newsroom/api/rss",
        ),
        wire_languages=("en",),
        news_max_tickers=10,
        news_skip=("halts", "trading-halts", "options", "block-trades", "movers"),
        anthropic_base_url="https://api.anthropic.com",
        sentiment_model="claude-haiku-5-5",
        hold_steering=True,
        ticker_list_csv=None,
        finviz_export_url="",
        session_roll=time(4, 0),
        dashboard_host="127.0.0.1",
        dashboard_port=8180,
        dashboard_password="",
        alert_urls=(),
        metrics_port=0,
        allow_unencrypted_keys=False,
        data_folder=Path("data"),
        trigger_folder=Path("triggers"),
        log_folder=Path("logs"),
    )
    assert settings.embedded
    assert settings.anthropic_keys == ()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("IBKR_HOST", "10.0.0.7", "10.0.0.7"),
        ("IBKR_PORT", "4002", 4002),
        ("IBKR_PORT", "1", 1),
        ("IBKR_PORT", " 65535 ", 65535),
        ("IBKR_CLIENT_ID", "0", 0),
        ("IBKR_CLIENT_ID", "2147483647", 2147483647),
        ("IBKR_MARKET_DATA_TYPE", "1", 1),
        ("IBKR_MARKET_DATA_TYPE", "3", 3),
        ("IBKR_REFERENCE", "qqq", "QQQ"),
        ("IBKR_REFERENCE", " ", ""),
        ("FOLLOW_UP", "true", True),
        ("CLICKHOUSE_HOST", "db.example", "db.example"),
        ("CLICKHOUSE_PORT", "9123", 9123),
        ("CLICKHOUSE_USER", "news", "news"),
        ("CLICKHOUSE_PASSWORD", "it's #1 $x", "it's #1 $x"),
        ("CLICKHOUSE_SECURE", "true", True),
        ("CLICKHOUSE_SECURE", "YES", True),
        ("CLICKHOUSE_SECURE", "1", True),
        ("CLICKHOUSE_SECURE", "false", False),
        ("CLICKHOUSE_SECURE", "No", False),
        ("CLICKHOUSE_SECURE", "0", False),
        ("CLICKHOUSE_PATH", "/data/ch", Path("/data/ch")),
        ("NEWS_SOURCES", "Alpaca benzinga", ("alpaca", "benzinga")),
        ("BENZINGA_API_KEY", "k-1", "k-1"),
        ("ALPACA_API_KEY", "k-3", "k-3"),
        ("ALPACA_STREAM_URL", "ws://127.0.0.1:8002/x", "ws://127.0.0.1:8002/x"),
        ("BENZINGA_STREAM_URL", "ws://127.0.0.1:8000/x?y=1", "ws://127.0.0.1:8000/x?y=1"),
        ("BENZINGA_TEXT_PING", "true", True),
        ("BENZINGA_REPLAY", "false", False),
        ("NEWS_SOURCES", "wires", ("wires",)),
        ("WIRE_FEEDS", "https://a.example http://b", ("https://a.example", "http://b")),
        ("WIRE_LANGUAGES", "en fr", ("en", "fr")),
        ("NEWS_MAX_TICKERS", "100", 100),
        ("NEWS_SKIP", "Movers Analyst-Ratings", ("Movers", "Analyst-Ratings")),
        ("NEWS_SKIP", "off", ()),
        ("ANTHROPIC_API_KEY", "k-2", "k-2"),
        ("ANTHROPIC_API_KEY9", "k-9", "k-9"),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("SENTIMENT_MODEL", "claude-opus-6", "claude-opus-6"),
        ("HOLD_STEERING", "false", False),
        ("TICKER_LIST_CSV", "lists/float.csv", Path("lists/float.csv")),
        ("FINVIZ_EXPORT_URL", "https://a.example/export?auth=t", "https://a.example/export?auth=t"),
        ("DASHBOARD_HOST", "0.0.0.0", "0.0.0.0"),
        ("DASHBOARD_PORT", "80", 80),
        ("DASHBOARD_PASSWORD", "it's #1", "it's #1"),
        ("ALERT_URLS", "json://a tgram://b/c ", ("json://a", "tgram://b/c")),
        ("ALERT_SILENCE", "News  market-data", ("news", "market-data")),
        ("METRICS_PORT", "9100", 9100),
        ("RECORD_FOLDER", "recordings", Path("recordings")),
        ("RECORD_MAX_GB", "0.5", 0.5),
        ("ALLOW_UNENCRYPTED_KEYS", "true", True),
        ("SESSION_ROLL", "03:30", time(3, 30)),
        ("SESSION_ROLL", "off", None),
        ("SESSION_ROLL", "OFF", None),
    ],
)
def test_each_variable_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(Settings.from_environment(), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("BENZINGA_STREAM_URL", "ws://stream.example/x"),
        ("ALPACA_STREAM_URL", "ws://stream.example/x"),
        ("ANTHROPIC_BASE_URL", "http://10.0.0.7:8001"),
        ("ANTHROPIC_BASE_URL", "http://localhost.example"),
        ("FINVIZ_EXPORT_URL", "http://finviz.example/export?auth=s3cr3t"),
    ],
)
def test_a_key_goes_unencrypted_to_another_machine_only_where_that_is_allowed(
    name: str, address: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}.*ALLOW_UNENCRYPTED_KEYS") as refused:
        Settings.from_environment({name: address})
    assert "s3cr3t" not in str(refused.value)
    allowed = {name: address, "ALLOW_UNENCRYPTED_KEYS": "true"}
    assert getattr(Settings.from_environment(allowed), name.lower()) == address


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.0.1", "[::1]"])
def test_a_key_may_go_unencrypted_to_this_machine(host: str) -> None:
    address = f"http://{host}:8001"
    assert Settings.from_environment({"ANTHROPIC_BASE_URL": address}).anthropic_base_url == address


def test_a_tilde_in_the_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    settings = Settings.from_environment({"CLICKHOUSE_PATH": "~/ch"})
    assert settings.clickhouse_path == Path("/home/someone/ch")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            (name, text)
            for name in ("IBKR_PORT", "CLICKHOUSE_PORT", "DASHBOARD_PORT", "METRICS_PORT")
            for text in ("abc", "0", "65536", "-1", "7497.0", "+7497", "7 497", "\u0661\u0662", "²")
        ),
        *(
            ("IBKR_CLIENT_ID", text)
            for text in ("abc", "-1", "2147483648", "1.5", "0x10", "\u0661", "²")
        ),
        ("IBKR_REFERENCE", "S&P 500"),
        ("FOLLOW_UP", "31"),
        ("ALERT_SILENCE", "pages"),
        *(("IBKR_MARKET_DATA_TYPE", text) for text in ("0", "2", "4", "live", "\u0661")),
        *(("CLICKHOUSE_SECURE", text) for text in ("maybe", "2", "truee", "-")),
        *(("NEWS_SOURCES", text) for text in ("reuters", "benzinga, alpaca", "benzinga reuters")),
        ("ALPACA_STREAM_URL", "https://a.example"),
        ("WIRE_FEEDS", "https://a.example feed.xml"),
        ("BENZINGA_TEXT_PING", "often"),
        ("BENZINGA_REPLAY", "often"),
        *(("NEWS_MAX_TICKERS", text) for text in ("0", "101", "ten", "-1")),
        *(
            (name, text)
            for name in ("BENZINGA_STREAM_URL", "ANTHROPIC_BASE_URL", "FINVIZ_EXPORT_URL")
            for text in ("abc", "ftp://a.example", "https://", "wss://", "ws://a:99999", "http://[")
        ),
        *(("SESSION_ROLL", text) for text in ("24:00", "4", "04:60", "never", "-1:00")),
        *(("SESSION_ROLL", text) for text in ("04:00Z", "04:00+02:00", "04:00 EST")),
        ("IBKR_PORT", "9" * 5000),
        ("IBKR_CLIENT_ID", "9" * 5000),
        ("CLICKHOUSE_PATH", "~nobody-of-this-name/ch"),
        ("RECORD_FOLDER", "~nobody-of-this-name/rec"),
        *(("RECORD_MAX_GB", text) for text in ("0", "-1", "ten", "inf", "nan")),
        ("CLICKHOUSE_PATH", "data/clickhouse?config-file=other.xml"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} ") as caught:
        Settings.from_environment({name: text})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BENZINGA_API_KY", "BENZINGA_API_KEY"),
        ("BENZINGA_APIKEY", "BENZINGA_API_KEY"),
        ("ANTROPIC_API_KEY", "ANTHROPIC_API_KEY"),
        ("ANTHROPIC_API_KEY1", "ANTHROPIC_API_KEY"),
        ("ibkr_port", "IBKR_PORT"),
        ("ALERT_URL", "ALERT_URLS"),
    ],
)
def test_a_name_that_is_nearly_a_variable_s_is_told_with_the_right_one(
    name: str, meant: str
) -> None:
    assert misspelt([name, "PATH", "IBKR_PORT", "CLICKHOUSE_DATABASE"]) == {name: meant}
    write_env(f"# My keys\n\nIBKR_PORT=4001\n\n{name}=x\n")
    with pytest.raises(ConfigurationError, match=rf"^\.env, line 5: {name} must be {meant}\.$"):
        Settings.from_environment()


def test_a_name_of_another_program_may_stand_in_the_env_file() -> None:
    write_env("\ufeffexport TZ=UTC\nPOSTGRES_PASSWORD=x\nIBKR_PORT=4001 # TWS\n")
    assert Settings.from_environment().ibkr_port == 4001


@pytest.mark.parametrize("line", ["IBKR_PORT 4001", "=x", "'unclosed", "IBKR_HOST='unclosed"])
def test_a_line_of_the_env_file_that_cannot_be_read_is_told_with_its_number(line: str) -> None:
    write_env(f"\nIBKR_CLIENT_ID=7\n\n{line}\n")
    with pytest.raises(ConfigurationError, match=r"^\.env, line 4 cannot be read"):
        Settings.from_environment()


def test_an_env_file_that_is_not_utf_8_is_refused_by_its_name() -> None:
    Path(".env").write_bytes(b"CLICKHOUSE_PASSWORD=p\xe4ss\n")
    with pytest.raises(ConfigurationError, match=r"\.env"):
        Settings.from_environment()


def test_a_password_in_the_env_file_is_taken_as_it_stands() -> None:
    write_env("CLICKHOUSE_PASSWORD=a${HOME}b\n")
    assert Settings.from_environment().clickhouse_password == "a${HOME}b"


@pytest.mark.parametrize(
    ("variables", "port"),
    [
        ({}, 8123),
        ({"CLICKHOUSE_SECURE": "false"}, 8123),
        ({"CLICKHOUSE_SECURE": "true"}, 8443),
        ({"CLICKHOUSE_SECURE": "true", "CLICKHOUSE_PORT": ""}, 8443),
        ({"CLICKHOUSE_SECURE": "true", "CLICKHOUSE_PORT": "8123"}, 8123),
    ],
)
def test_the_default_port_of_the_server_depends_on_https(
    variables: dict[str, str], port: int
) -> None:
    assert Settings.from_environment(variables).clickhouse_port == port


def test_a_server_by_name_replaces_the_embedded_engine() -> None:
    assert not Settings.from_environment({"CLICKHOUSE_HOST": "db.example"}).embedded


def test_the_environment_wins_over_the_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_env("IBKR_PORT=4001\nIBKR_HOST=from-file\n")
    monkeypatch.setenv("IBKR_PORT", "4002")
    settings = Settings.from_environment()
    assert (settings.ibkr_port, settings.ibkr_host) == (4002, "from-file")
    assert "IBKR_HOST" not in os.environ, "the file's values went into the process's environment"


def test_variables_that_are_given_leave_the_env_file_unread() -> None:
    write_env("IBKR_PORT=4001\n")
    assert Settings.from_environment({}).ibkr_port == 7497


@pytest.mark.parametrize("empty", ["", "   "])
@pytest.mark.parametrize("name", [name for name in VARIABLES if name != "IBKR_REFERENCE"])
def test_an_empty_variable_means_its_default(name: str, empty: str) -> None:
    assert Settings.from_environment({name: empty}) == Settings.from_environment({})


def test_a_wrong_value_in_the_env_file_is_refused_too() -> None:
    write_env("IBKR_PORT=abc\n")
    with pytest.raises(ConfigurationError, match=r"IBKR_PORT .*'abc'"):
        Settings.from_environment()


def test_the_example_file_shows_each_variable_with_its_default() -> None:
    example = dotenv_values(EXAMPLE)
    assert list(example) == Settings.variables() == VARIABLES
    assert Settings.from_environment(example) == Settings.from_environment({})
    shown = {name: text for name, text in example.items() if text}
    assert shown == {
        "IBKR_HOST": "127.0.0.1",
        "IBKR_PORT": "7497",
        "IBKR_CLIENT_ID": "10",
        "IBKR_MARKET_DATA_TYPE": "1",
        "IBKR_REFERENCE": "SPY",
        "FOLLOW_UP": "false",
        "CLICKHOUSE_USER": "default",
        "CLICKHOUSE_SECURE": "false",
        "CLICKHOUSE_PATH": "data/clickhouse",
        "NEWS_SOURCES": "benzinga",
        "BENZINGA_STREAM_URL": "wss://api.benzinga.com/api/v1/news/stream",
        "BENZINGA_TEXT_PING": "false",
        "BENZINGA_REPLAY": "true",
        "ALPACA_STREAM_URL": "wss://stream.data.alpaca.markets/v1beta1/news",
        "WIRE_LANGUAGES": "en",
        "NEWS_MAX_TICKERS": "10",
        "NEWS_SKIP": "halts trading-halts options block-trades movers",
        "ANTHROPIC_BASE_URL": "https://api.anthropic.com",
        "SENTIMENT_MODEL": "claude-haiku-5-5",
        "HOLD_STEERING": "true",
        "SESSION_ROLL": "04:00",
        "DASHBOARD_HOST": "127.0.0.1",
        "DASHBOARD_PORT": "8180",
        "RECORD_MAX_GB": "10",
        "ALLOW_UNENCRYPTED_KEYS": "false",
    }


def test_the_keys_that_are_set_are_taken_in_their_order() -> None:
    environ = {"ANTHROPIC_API_KEY9": "i", "ANTHROPIC_API_KEY": "a", "ANTHROPIC_API_KEY3": "c"}
    assert Settings.from_environment(environ).anthropic_keys == ("a", "c", "i")


SECRETS = [
    *("CLICKHOUSE_PASSWORD", "BENZINGA_API_KEY", "ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY2"),
    *("ALPACA_API_KEY", "ALPACA_API_SECRET"),
    *("ANTHROPIC_API_KEY9", "FINVIZ_EXPORT_URL", "DASHBOARD_PASSWORD", "ALERT_URLS"),
]


@pytest.mark.parametrize("name", SECRETS)
def test_passwords_and_keys_are_not_shown(name: str) -> None:
    settings = Settings.from_environment({name: "https://a.example/sesame-open"})
    assert "sesame-open" not in f"{settings!r} {settings}"


def test_an_address_that_is_none_is_refused_without_being_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"FINVIZ_EXPORT_URL": "elite.example/export?auth=sesame-open"})
    assert "sesame-open" not in str(caught.value)
