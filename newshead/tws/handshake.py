"""The first messages of a connection to TWS.

In place of the library's handshake, which has no deadline and loops for ever over an
answer that is none.
"""

import itertools
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from ibapi.server_versions import MAX_CLIENT_VER, MIN_CLIENT_VER

from newshead.tws import failures
from newshead.tws.codes import CODES
from newshead.tws.failures import GatewayError
from newshead.tws.wire import TwsSocket, framed

logger = logging.getLogger(__name__)


class Greeting(NamedTuple):
    """TWS's answer to the handshake, and the messages that follow it."""

    server_version: int
    connected_at: str
    messages: Iterator[list[bytes]]


def greet(host: str, port: int, timeout_s: float, opened: Callable[[TwsSocket], None]) -> Greeting:
    """Shake hands with TWS at the first of the host's addresses that it answers at. Blocks.

    `localhost` may be ::1 first, where nothing listens, or something else.

    Parameters
    ----------
    timeout_s
        For all addresses together; at the last one an answer is waited for without an end.
    opened
        Takes over each socket that opened; raises a GatewayError once none is wanted.

    Raises
    ------
    GatewayError
        TWS answers at no address. The failure is that of the last one where something listens.
    """
    *others, last = _addresses(host, port)
    share_s = timeout_s / (len(others) + 1)
    accepted: GatewayError | None = None
    for address in others:
        try:
            with _opened(host, address, port, share_s, opened) as connection:
                answer_by = time.monotonic() + share_s
                return _shake_hands(connection, _shown(address), port, answer_by)
        except GatewayError as problem:
            logger.debug("Trying the next address of %s: %s", host, problem)
            accepted = problem if problem.accepted else accepted
    try:
        with _opened(host, last, port, share_s, opened) as connection:
            return _shake_hands(connection, _shown(last) if others else host, port, math.inf)
    except GatewayError as problem:
        raise (accepted if accepted is not None and not problem.accepted else problem) from None


def _addresses(host: str, port: int) -> list[str]:
    """Return the addresses of a host, in the order in which they are to be tried.

    Raises
    ------
    GatewayError
        There are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:  # UnicodeError: no host can be called that
        raise _nothing_listens(host, port, problem) from problem
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@contextmanager
def _opened(
    host: str, address: str, port: int, timeout_s: float, opened: Callable[[TwsSocket], None]
) -> Iterator[TwsSocket]:
    """Open the socket to TWS, and close it if the block fails.

    Raises
    ------
    GatewayError
        Nothing listens there, or `opened` has raised it.
    """
    try:
        connection = TwsSocket(socket.create_connection((address, port), timeout_s))
    except OSError as problem:
        raise _nothing_listens(host, port, problem) from problem
    try:
        opened(connection)
        yield connection
    except GatewayError:
        connection.close()
        raise


def _nothing_listens(host: str, port: int, problem: Exception) -> GatewayError:
    reason = getattr(problem, "strerror", None) or str(problem)
    line = CODES[502].line.format(host=host, port=port)
    return GatewayError(f"{line} ({reason})", accepted=False)


def _shown(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _shake_hands(connection: TwsSocket, host: str, port: int, answer_by: float) -> Greeting:
    """Tell TWS which versions are spoken here; other messages may stand before its answer.

    Raises
    ------
    GatewayError
        It is not TWS, it closed the connection, or it has not answered in time.
    """
    versions = f"v{MIN_CLIENT_VER}..{MAX_CLIENT_VER}".encode()
    connection.sendMsg(b"API\0" + len(versions).to_bytes(4, "big") + versions)
    reads = connection.messages()
    try:
        for messages in reads:
            for number, message in enumerate(messages, 1):
                fields = message.split(b"\0")
                if len(fields) == 3 and fields[0].isdigit():
                    connection.taken = framed(messages[number:])
                    rest = itertools.chain([messages[number:]], reads)
                    return Greeting(int(fields[0]), fields[1].decode(errors="replace"), rest)
            if time.monotonic() >= answer_by:
                raise failures.says_nothing(host, port)
    except GatewayError:
        raise
    except ValueError as problem:
        raise failures.not_tws(host, port, problem) from problem
    except OSError as problem:
        logger.debug("The handshake broke: %s", problem)
    raise failures.closed_early(host, port)
