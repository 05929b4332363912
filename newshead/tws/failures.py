"""Why there is no connection to TWS, in words that name the cause and the remedy."""

from newshead.tws.link import ConnectionState


class GatewayError(ConnectionError):
    """No connection to TWS; the text names the cause and the remedy.

    `accepted`: something accepted the connection, which then failed. False:
    nothing listens there, or nothing was reached. `final`: trying again is no
    use until the user has acted.
    """

    def __init__(self, text: str, *, accepted: bool, final: bool = False) -> None:
        super().__init__(text)
        self.accepted = accepted
        self.final = final


def no_answer(host: str, port: int, state: ConnectionState) -> GatewayError:
    """Return the failure of an attempt that has only come as far as `state` in its time."""
    if state is ConnectionState.CONNECTING:
        return GatewayError(
            f"Nothing answers at {host}:{port}: see that IBKR_HOST is right and no firewall "
            "stands between.",
            accepted=False,
        )
    return says_nothing(host, port)


def says_nothing(host: str, port: int) -> GatewayError:
    """Return the failure of an attempt to which something listens that sends nothing."""
    return GatewayError(
        f"{host}:{port} accepted the connection but sends nothing: TWS hangs and needs a restart, "
        "or IBKR_PORT belongs to another program.",
        accepted=True,
    )


def not_ready(host: str, port: int) -> GatewayError:
    """Return the failure of an attempt to which TWS answered without taking requests."""
    return GatewayError(
        f"TWS at {host}:{port} answered but takes no requests yet: accept the connection in the "
        "pop-up on its screen, or wait until the gateway has logged in.",
        accepted=True,
    )


def not_tws(host: str, port: int, sent: object) -> GatewayError:
    """Return the failure of an attempt that was answered in no form of TWS's."""
    return GatewayError(
        f"What listens on {host}:{port} is not TWS (it sent {sent}): "
        "compare IBKR_PORT with TWS's socket port.",
        accepted=True,
    )


def closed_early(host: str, port: int) -> GatewayError:
    """Return the failure of an attempt that TWS ended before it was ready."""
    return GatewayError(
        f"TWS at {host}:{port} closed the connection during the handshake: allow this machine "
        "under Configure > API > Settings > Trusted IPs, and see whether TWS takes more clients. "
        "Behind a tunnel or a forwarded port (ssh -L, socat, Docker) TWS may also be down or "
        "restarting.",
        accepted=True,
    )


def fell_silent(host: str, port: int, quiet_s: float) -> GatewayError:
    """Return the failure of a connection on which TWS gives no sign of life."""
    return GatewayError(
        f"No message from TWS at {host}:{port} for {quiet_s:.0f} s on an open socket: it hangs, "
        "or the network between is cut.",
        accepted=True,
    )


def no_data(host: str, port: int) -> GatewayError:
    """Return the failure of a connection on which TWS serves no data, whatever is requested."""
    return GatewayError(
        f"TWS at {host}:{port} answers but serves no market data, not even after new requests.",
        accepted=True,
    )


def broke(problem: Exception) -> GatewayError:
    """Return the failure of a connection whose socket or framing broke."""
    return GatewayError(f"The connection to TWS broke: {problem}.", accepted=True)


def tws_ended_it() -> GatewayError:
    """Return the failure of a connection that TWS closed."""
    return GatewayError("TWS ended it; see whether TWS restarts or shows a message.", accepted=True)


def newshead_ended_it() -> GatewayError:
    """Return the failure that stands for an end of newshead's own."""
    return GatewayError("newshead ended it.", accepted=False)


def given_up() -> GatewayError:
    """Return the failure of a socket that opened after its attempt was given up."""
    return GatewayError("It was given up.", accepted=False)


def unreadable(what: str, problem: Exception) -> GatewayError:
    """Return the failure of a connection on which a message that is needed cannot be read."""
    return GatewayError(
        f"TWS sent a {what} that IBKR's client cannot read ({problem!r}).", accepted=True
    )
