"""The first messages of a connection to TWS.

In place of the library's handshake, which has no deadline and loops for ever over an
answer that is none.
"""

import itertools
import logging
import socket
from collections.abc import Iterator
from typing import NamedTuple

from ibapi.server_versions import MAX_CLIENT_VER, MIN_CLIENT_VER

from newshead.tws import failures
from newshead.tws.codes import CODES
from newshead.tws.failures import GatewayError
from newshead.tws.wire import TwsSocket

logger = logging.getLogger(__name__)


class Greeting(NamedTuple):
    """TWS's answer to the handshake, and the messages that follow it."""

    server_version: int
    connected_at: str
    messages: Iterator[list[bytes]]


def open_socket(host: str, port: int, timeout_s: float) -> TwsSocket:
    """Open the socket to TWS. Blocks.

    Raises
    ------
    GatewayError
        Nothing listens there.
    """
    try:
        return TwsSocket(socket.create_connection((host, port), timeout_s))
    except (OSError, UnicodeError) as problem:  # UnicodeError: no host can be called that
        reason = getattr(problem, "strerror", None) or str(problem)
        line = CODES[502].line.format(host=host, port=port)
        raise GatewayError(f"{line} ({reason})", accepted=False) from problem


def shake_hands(connection: TwsSocket, host: str, port: int) -> Greeting:
    """Tell TWS which versions are spoken here; other messages may stand before its answer. Blocks.

    Raises
    ------
    GatewayError
        It is not TWS, or it closed the connection.
    """
    versions = f"v{MIN_CLIENT_VER}..{MAX_CLIENT_VER}".encode()
    connection.sendMsg(b"API\0" + len(versions).to_bytes(4, "big") + versions)
    reads = connection.messages()
    try:
        for messages in reads:
            for number, message in enumerate(messages, 1):
                fields = message.split(b"\0")
                if len(fields) == 3 and fields[0].isdigit():
                    rest = itertools.chain([messages[number:]], reads)
                    return Greeting(int(fields[0]), fields[1].decode(errors="replace"), rest)
    except ValueError as problem:
        raise failures.not_tws(host, port, problem) from problem
    except OSError as problem:
        logger.debug("The handshake broke: %s", problem)
    raise failures.closed_early(host, port)
