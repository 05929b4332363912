"""A simulated TWS gateway, to try and to test clients against. It listens on loopback only."""

from simulator.gateway import Gateway
from simulator.market import Market, MarketError, Trade
from simulator.session import Handshake, Request
from simulator.thread import GatewayThread

__all__ = ["Gateway", "GatewayThread", "Handshake", "Market", "MarketError", "Request", "Trade"]
