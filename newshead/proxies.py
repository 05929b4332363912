"""The proxies of the environment, made to mean the same to every library.

The libraries differ: in the variables they read, in what they take a value without a scheme for,
and in whether one that is of no use ends everything. So a command puts the environment in order
before they read it.
"""

import re
from collections.abc import Iterable, MutableMapping
from importlib.util import find_spec
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from newshead.settings import ConfigurationError, Settings

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
# What a library takes for SOCKS: the package, and its module.
SOCKS: Final = {
    "websockets": ("python-socks[asyncio]", "python_socks"),
    "httpx2": ("socksio", "socksio"),
    "apprise": ("PySocks", "socks"),
}


class Outside(NamedTuple):
    """An address that a configured part talks to, and the library that it does it with."""

    address: str
    library: str


def outside_of(
    settings: Settings, *, news: bool = False, rating: bool = False, ticker_list: bool = False
) -> list[Outside]:
    """Return the addresses that a command's parts talk to.

    Parameters
    ----------
    news, rating, ticker_list
        Whether the sources of news are read, articles rated, and the ticker list fetched.
    """
    scheme = "https" if settings.clickhouse_secure else "http"
    found = [] if settings.embedded else [Outside(f"{scheme}://{settings.clickhouse_host}", "")]
    if news and "benzinga" in settings.news_sources and settings.benzinga_api_key:
        found.append(Outside(settings.benzinga_stream_url, "websockets"))
    if news and "alpaca" in settings.news_sources and settings.alpaca_api_key:
        found.append(Outside(settings.alpaca_stream_url, "websockets"))
    if news and "wires" in settings.news_sources:
        found += [Outside(address, "httpx2") for address in settings.wire_feeds]
    if rating and settings.anthropic_keys:
        found.append(Outside(settings.anthropic_base_url, "httpx2"))
    if ticker_list and settings.finviz_export_url and settings.ticker_list_csv is None:
        found.append(Outside(settings.finviz_export_url, "httpx2"))
    for address in settings.alert_urls:
        # Each of apprise's schemes is a service, most of them by HTTPS.
        found.append(Outside(f"https://{address.partition('://')[2]}", "apprise"))
    return found


def settle_proxies(environ: MutableMapping[str, str], outside: Iterable[Outside]) -> None:
    """Put the proxies of the environment in order, for this process and its children.

    Raises
    ------
    ConfigurationError
        One of the addresses would be reached through a proxy that is of no use.
    """
    exempt = _exempt(environ)
    chosen = {kind: _chosen(environ, kind) for kind in ("http", "https")}
    for address, library in outside:
        try:
            parts = urlsplit(address)
            host = parts.hostname or ""
        except ValueError:
            # Whoever uses it says so.
            continue
        if _is_exempt(host, exempt):
            continue
        variable, value = chosen["https" if parts.scheme in ("https", "wss") else "http"]
        if reason := _fault(value, library):
            raise ConfigurationError(f"{variable} {reason}")
    for kind, (_, value) in chosen.items():
        for name in (f"{kind}_proxy", f"{kind}_proxy".upper()):
            environ.pop(name, None)
            # One that nobody needs ends some libraries all the same.
            if value and not _fault(value, *SOCKS):
                environ[name] = _with_scheme(value)
    for name in ("all_proxy", "ALL_PROXY"):
        environ.pop(name, None)
    environ["no_proxy"] = environ["NO_PROXY"] = exempt


def _exempt(environ: MutableMapping[str, str]) -> str:
    told = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in told.split(",") if host.strip()]
    return "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, *LOOPBACK]))


def _is_exempt(host: str, exempt: str) -> bool:
    names = [re.sub(r"^\.|(?<!:):[0-9]+$", "", name).lower() for name in exempt.split(",")]
    return exempt == "*" or any(host == name or host.endswith(f".{name}") for name in names)


def _chosen(environ: MutableMapping[str, str], kind: str) -> tuple[str, str]:
    """Return the variable that holds the proxy for a kind of address, and its value."""
    names = (f"{kind}_proxy", f"{kind}_proxy".upper(), "all_proxy", "ALL_PROXY")
    for name in names:
        if value := environ.get(name, "").strip():
            return name, value
    return "", ""


def _with_scheme(value: str) -> str:
    return value if "://" in value else f"http://{value}"


def _fault(value: str, *libraries: str) -> str:
    """Return what is wrong with a proxy for these libraries; empty where nothing is.

    The value itself is not shown: it may hold a password.
    """
    if not value:
        return ""
    try:
        parts = urlsplit(_with_scheme(value))
        usable = bool(parts.hostname) and parts.port != 0 and not any(map(str.isspace, value))
    except ValueError:
        usable = False
    if not usable:
        return "must be a proxy's address, such as http://proxy.example:3128."
    if parts.scheme in ("http", "https"):
        return ""
    if parts.scheme not in ("socks4", "socks4a", "socks5", "socks5h"):
        return "must begin with http:// or https://, or with socks5:// for a SOCKS proxy."
    if "" in libraries:
        return "is a SOCKS proxy, which no connection to ClickHouse goes through: use NO_PROXY."
    needed = [SOCKS[library] for library in libraries]
    missing = [package for package, module in needed if find_spec(module) is None]
    if missing:
        return f"is a SOCKS proxy, which takes the packages {', '.join(missing)}: install them."
    return ""
