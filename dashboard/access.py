"""Who may see the page: those on this machine, or those who know the password."""

import asyncio
import base64
import binascii
import hmac
import logging
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

# After a wrong password, so that guessing takes its time.
WRONG_PASSWORD_PAUSE_S: Final = 1.0
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                # What is served is the market's present, or a newer page than the one kept.
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        given = Headers(scope=scope).get("Authorization", "")
        if not self._password or hmac.compare_digest(_password(given), self._password):
            await self.app(scope, receive, send_with_headers)
            return
        if given:
            logger.warning("A wrong password for the page came from %s.", scope["client"][0])
            await asyncio.sleep(WRONG_PASSWORD_PAUSE_S)
        refusal = PlainTextResponse(
            "This page needs its password (DASHBOARD_PASSWORD); any user name will do.",
            status_code=401,
            headers={"WWW-Authenticate": 'Basic realm="newshead", charset="UTF-8"'},
        )
        await refusal(scope, receive, send_with_headers)


def _password(authorization: str) -> bytes:
    """Return the password in a header of HTTP Basic; empty where there is none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        user_and_password = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""
    return user_and_password.partition(b":")[2] if scheme.lower() == "basic" else b""
