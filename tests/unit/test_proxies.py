"""The proxies of the environment mean the same to every library, and never loopback."""

import pytest

from newshead.proxies import LOOPBACK, Outside, outside_of, settle_proxies
from newshead.settings import ConfigurationError, Settings

FAR = Outside("https://far.example/x", "httpx2")
EXEMPT = ",".join(LOOPBACK)


def settled(environ: dict[str, str], *outside: Outside) -> dict[str, str]:
    """The proxies afterwards, by lower-case name; both spellings are the same."""
    changed = {"PATH": "/bin"} | environ
    settle_proxies(changed, outside)
    assert changed.pop("PATH") == "/bin"
    lower = {name: value for name, value in changed.items() if name.islower()}
    assert changed == lower | {name.upper(): value for name, value in lower.items()}
    return lower


def test_without_a_proxy_loopback_is_exempt_all_the_same() -> None:
    assert settled({}, FAR) == {"no_proxy": EXEMPT}


@pytest.mark.parametrize(
    ("environ", "http", "https"),
    [
        ({"HTTP_PROXY": "http://a:1"}, "http://a:1", None),
        ({"https_proxy": "https://a:1"}, None, "https://a:1"),
        ({"ALL_PROXY": "http://a:1"}, "http://a:1", "http://a:1"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:2"}, "http://a:1", "http://b:2"),
        ({"HTTPS_PROXY": "a.example:3128"}, None, "http://a.example:3128"),
        ({"HTTPS_PROXY": "user:pass@a.example"}, None, "http://user:pass@a.example"),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, None, "http://a:1"),
        ({"HTTPS_PROXY": " "}, None, None),
    ],
)
def test_every_variable_holds_what_every_library_reads(
    environ: dict[str, str], http: str | None, https: str | None
) -> None:
    found = settled(environ, FAR)
    assert (found.get("http_proxy"), found.get("https_proxy")) == (http, https)
    assert "all_proxy" not in found


def test_hosts_without_a_proxy_are_kept_and_loopback_added() -> None:
    assert (
        settled({"NO_PROXY": "a.example, ::1"})["no_proxy"] == "a.example,::1,localhost,127.0.0.1"
    )
    assert settled({"no_proxy": "b,*"})["no_proxy"] == "*"


UNUSABLE = [
    "http://",
    "http://a:99999",
    "ftp://a:1",
    "http://a b:1",
    "http://[",
    "://",
    "socks9://a",
]


@pytest.mark.parametrize("value", UNUSABLE)
def test_a_value_of_no_use_is_refused_where_an_address_would_use_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^HTTPS_PROXY must ") as caught:
        settled({"HTTPS_PROXY": value}, FAR)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", UNUSABLE)
def test_a_value_of_no_use_that_no_address_would_use_is_taken_away(value: str) -> None:
    near = [Outside(address, "httpx2") for address in ("https://127.0.0.1:1", "http://far.example")]
    exempt = {"HTTPS_PROXY": value, "NO_PROXY": "other.example"}
    found = settled(exempt, *near, Outside("wss://news.other.example/x", "websockets"))
    assert "https_proxy" not in found


@pytest.mark.parametrize(
    ("library", "package"),
    [("websockets", "python-socks"), ("httpx2", "socksio"), ("apprise", "PySocks")],
)
def test_a_socks_proxy_takes_packages_that_are_named_where_they_are_missing(
    library: str, package: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^ALL_PROXY is a SOCKS proxy.*{package}"):
        settled({"ALL_PROXY": "socks5h://a:1080"}, Outside("https://far.example", library))


def test_a_password_in_a_proxy_s_address_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        settled({"HTTPS_PROXY": "http://user:sesame-open@"}, FAR)
    assert "sesame" not in str(caught.value)


def test_only_configured_parts_talk_to_the_outside() -> None:
    assert outside_of(Settings(), news=True, rating=True, ticker_list=True) == []
    settings = Settings(
        clickhouse_host="db.example",
        clickhouse_secure=True,
        news_sources=("benzinga", "alpaca", "wires"),
        benzinga_api_key="k",
        alpaca_api_key="k",
        wire_feeds=("http://wire.example/rss",),
        anthropic_api_key="k",
        finviz_export_url="https://finviz.example",
        alert_urls=("ntfys://topic.example/x",),
    )
    found = outside_of(settings, news=True, rating=True, ticker_list=True)
    assert [tuple(each) for each in found] == [
        ("https://db.example", ""),
        (settings.benzinga_stream_url, "websockets"),
        (settings.alpaca_stream_url, "websockets"),
        ("http://wire.example/rss", "httpx2"),
        (settings.anthropic_base_url, "httpx2"),
        ("https://finviz.example", "httpx2"),
        ("https://topic.example/x", "apprise"),
    ]
    assert len(outside_of(settings)) == 2
