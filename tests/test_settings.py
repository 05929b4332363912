"""The environment variables: their defaults, their checks and `.env.example`."""

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values

from settings import ConfigurationError, Settings

EXAMPLE = Path(__file__).parents[1] / ".env.example"
VARIABLES = [
    "IBKR_HOST",
    "IBKR_PORT",
    "IBKR_CLIENT_ID",
    "CLICKHOUSE_HOST",
    "CLICKHOUSE_PORT",
    "CLICKHOUSE_USER",
    "CLICKHOUSE_PASSWORD",
    "CLICKHOUSE_SECURE",
    "CLICKHOUSE_PATH",
    "BENZINGA_API_KEY",
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
        clickhouse_host="",
        clickhouse_port=8123,
        clickhouse_user="default",
        clickhouse_password="",
        clickhouse_secure=False,
        clickhouse_path=Path("data/clickhouse"),
        benzinga_api_key="",
        trigger_folder=Path("triggers"),
        log_folder=Path("logs"),
    )
    assert settings.embedded


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("IBKR_HOST", "10.0.0.7", "10.0.0.7"),
        ("IBKR_PORT", "4002", 4002),
        ("IBKR_PORT", "1", 1),
        ("IBKR_PORT", " 65535 ", 65535),
        ("IBKR_CLIENT_ID", "0", 0),
        ("IBKR_CLIENT_ID", "2147483647", 2147483647),
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
        ("BENZINGA_API_KEY", "k-1", "k-1"),
    ],
)
def test_each_variable_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(Settings.from_environment(), name.lower()) == value


def test_a_tilde_in_the_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    settings = Settings.from_environment({"CLICKHOUSE_PATH": "~/ch"})
    assert settings.clickhouse_path == Path("/home/someone/ch")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(
            (name, text)
            for name in ("IBKR_PORT", "CLICKHOUSE_PORT")
            for text in ("abc", "0", "65536", "-1", "7497.0", "+7497", "7 497", "\u0661\u0662", "²")
        ),
        *(
            ("IBKR_CLIENT_ID", text)
            for text in ("abc", "-1", "2147483648", "1.5", "0x10", "\u0661", "²")
        ),
        *(("CLICKHOUSE_SECURE", text) for text in ("maybe", "2", "truee", "-")),
        ("IBKR_PORT", "9" * 5000),
        ("IBKR_CLIENT_ID", "9" * 5000),
        ("CLICKHOUSE_PATH", "~nobody-of-this-name/ch"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} ") as caught:
        Settings.from_environment({name: text})
    assert "\n" not in str(caught.value)


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
@pytest.mark.parametrize("name", VARIABLES)
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
        "CLICKHOUSE_USER": "default",
        "CLICKHOUSE_SECURE": "false",
        "CLICKHOUSE_PATH": "data/clickhouse",
    }


def test_passwords_and_keys_are_not_shown() -> None:
    settings = Settings.from_environment(
        {"CLICKHOUSE_PASSWORD": "sesame-open", "BENZINGA_API_KEY": "key-of-mine"}
    )
    for text in (repr(settings), str(settings), f"{settings}"):
        assert "sesame-open" not in text
        assert "key-of-mine" not in text
