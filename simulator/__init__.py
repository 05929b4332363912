"""What newshead talks to, to try and to test it against, on loopback only: a TWS gateway, the
Messages API that rates news and, in modules of their own, the sources of news: `simulator.news`
(Benzinga), `simulator.alpaca` and `simulator.feeds` (wires)."""

from simulator.gateway import Gateway
from simulator.market import Market, MarketError, Trade
from simulator.messages import Fault, MessagesRequest, MessagesServer, ScriptedRating
from simulator.session import Handshake, Request
from simulator.thread import GatewayThread

__all__ = [
    "Fault",
    "Gateway",
    "GatewayThread",
    "Handshake",
    "Market",
    "MarketError",
    "MessagesRequest",
    "MessagesServer",
    "Request",
    "ScriptedRating",
    "Trade",
]
