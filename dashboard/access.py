"""Who may see the page: those on this machine, or those who know the password."""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import logging
import time
from dataclasses import dataclass, field
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from newshead.outage import Repeated

logger = logging.getLogger(__name__)

# After a wrong password, so that guessing takes its time.
WRONG_PASSWORD_PAUSE_S: Final = 1.0
# So many of one address wait for their turn; more are refused unheard.
MAX_WAITING: Final = 8
# A provider gives each customer at least as much of IPv6.
IPV6_PREFIX: Final = 64
# What costs nothing may be opened from anywhere. For the rest a browser says whose page asks:
# one of another site, or of another port of this machine, gets nothing.
FREE_PATH: Final = "/"
FREE_FOLDER: Final = "/static/"
FOREIGN_SITES: Final = ("cross-site", "same-site")
# By these names a browser reaches this machine. Under any other, a page of the outside has
# given its name to this machine's address to read what is served here.
LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")

SECURITY_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Ask for the password, where there is one, and send the security headers with everything.

    The password comes by HTTP Basic, under any user name: nothing has to be
    kept here, and it stands in no address and no log.
    """

    def __init__(self, app: ASGIApp, password: str) -> None:
        self.app = app
        self._password = password.encode()
        # address → those of it that wait, while a wrong password of it is paused for
        self._turns: dict[str, _Turn] = {}
        self._wrong = Repeated()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                # What is served is the market's present, or a newer page than the one kept.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        refusal = _foreign(scope) or (await self._refusal(scope) if self._password else None)
        await (refusal or self.app)(scope, receive, send_with_headers)

    async def _refusal(self, scope: Scope) -> Response | None:
        """Return why a request gets nothing; None with the right password."""
        given = Headers(scope=scope).get("Authorization", "")
        if not given:
            return _unauthorized()
        address = _address_of(scope)
        turn = self._turns.get(address)
        if turn is None and self._is_right(given):
            return None
        if turn is None:
            turn = self._turns[address] = _Turn()
        if turn.waiting >= MAX_WAITING:
            return PlainTextResponse("Too many wrong passwords.", 429, {"Retry-After": "10"})
        turn.waiting += 1
        try:
            async with turn.lock:
                if self._is_right(given):
                    return None
                if count := self._wrong.happens(time.monotonic()):
                    logger.warning(
                        "A wrong password for the page came from %s (%d times).", address, count
                    )
                await asyncio.sleep(WRONG_PASSWORD_PAUSE_S)
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[address]
        return _unauthorized()

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(_password(given), self._password)


@dataclass
class _Turn:
    """Who guesses from one address is heard one after the other."""

    waiting: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


def _foreign(scope: Scope) -> Response | None:
    """Return the refusal of a request that another site's page makes; None for all others."""
    path = scope["path"]
    if path == FREE_PATH or path.startswith(FREE_FOLDER):
        return None
    if Headers(scope=scope).get("Sec-Fetch-Site", "") in FOREIGN_SITES:
        return PlainTextResponse("Open newshead's page itself.", 403)
    return None


def _address_of(scope: Scope) -> str:
    """Return where a request comes from, in IPv6 the network."""
    address = ipaddress.ip_address(scope["client"][0].partition("%")[0])
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _unauthorized() -> Response:
    return PlainTextResponse(
        "This page needs its password (DASHBOARD_PASSWORD); any user name will do.",
        status_code=401,
        headers={"WWW-Authenticate": 'Basic realm="newshead", charset="UTF-8"'},
    )


def _password(authorization: str) -> bytes:
    """Return the password in a header of HTTP Basic; empty where there is none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        user_and_password = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return user_and_password.partition(b":")[2] if scheme.lower() == "basic" else b""
