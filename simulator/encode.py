"""Messages from the gateway to a client, in the form of the negotiated server version."""

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from ibapi.message import IN
from ibapi.ticktype import TickTypeEnum

from simulator.book import DELAYED, GenericTick, PriceTick, SizeTick, Tick
from simulator.history import Bar
from simulator.stocks import Stock
from simulator.wire import (
    ERROR_TIME_SINCE,
    HISTORICAL_DATA_END,
    HISTORY_ENDS_APART_SINCE,
    INELIGIBILITY_REASONS_SINCE,
    LAST_TRADE_DATE_SINCE,
    PROTOBUF_MESSAGE_OFFSET,
    PROTOBUF_SINCE,
    RAW_MESSAGE_ID_SINCE,
    VOLUME_IN_SHARES_SINCE,
    frame,
    lengthen,
    protobuf_class,
    spell,
    text_fields,
)

TICK_MESSAGE_VERSION: Final = 6
GARBLED_PROTOBUF: Final = b"\xff\xff"
GARBLED_FIELDS: Final = ("?",)
ORDER_TYPES: Final = "ACTIVETIM,AD,ADJUST,ALERT,ALGO,ALLOC,LMT,MKT,STP,STP LMT,TRAIL"
VALID_EXCHANGES: Final = "SMART,AMEX,NYSE,CBOE,ISLAND,NASDAQ,ARCA,BATS,IEX"
EXCHANGE_ZONE: Final = "US/Eastern"


class Encoder:
    """Write each kind of message as bytes for the socket, its length before it.

    Of the kinds that are `garbled`, by their ids, nobody can read the bodies.
    """

    def __init__(self, server_version: int, garbled: AbstractSet[int] = frozenset()) -> None:
        self.server_version = server_version
        self._garbled = garbled

    def _message(
        self, message_id: int, fields: tuple[object, ...], protobuf: str, **values: Any
    ) -> bytes:
        """Write one message, given in its text form and in its protobuf form."""
        garbled = message_id in self._garbled
        if self.server_version >= PROTOBUF_SINCE[message_id]:
            raw_id = (message_id + PROTOBUF_MESSAGE_OFFSET).to_bytes(4, "big")
            body: bytes = protobuf_class(protobuf)(**values).SerializeToString()
            return frame(raw_id + (GARBLED_PROTOBUF if garbled else body))
        if garbled:
            fields = GARBLED_FIELDS
        if self.server_version >= RAW_MESSAGE_ID_SINCE:
            return frame(message_id.to_bytes(4, "big") + text_fields(fields))
        return frame(text_fields((message_id, *fields)))

    # Connecting

    def version(self) -> bytes:
        """Answer the client's hello; the only message without an id."""
        now = time.strftime("%Y%m%d %H:%M:%S GMT", time.gmtime())
        return frame(text_fields((self.server_version, now)))

    def managed_accounts(self, accounts: str) -> bytes:
        return self._message(
            IN.MANAGED_ACCTS, (1, accounts), "ManagedAccounts", accountsList=accounts
        )

    def next_valid_id(self, order_id: int) -> bytes:
        return self._message(IN.NEXT_VALID_ID, (1, order_id), "NextValidId", orderId=order_id)

    def current_time(self) -> bytes:
        now = int(time.time())
        return self._message(IN.CURRENT_TIME, (1, now), "CurrentTime", currentTime=now)

    def error(self, req_id: int, code: int, text: str) -> bytes:
        now_ms = int(time.time() * 1000)
        fields: tuple[object, ...] = (2, req_id, code, text, "")
        if self.server_version >= ERROR_TIME_SINCE:
            fields = (req_id, code, text, "", now_ms)
        return self._message(
            IN.ERR_MSG,
            fields,
            "ErrorMessage",
            id=req_id,
            errorTime=now_ms,
            errorCode=code,
            errorMsg=text,
        )

    # Market data

    def market_data_type(self, req_id: int, type_: int) -> bytes:
        return self._message(
            IN.MARKET_DATA_TYPE,
            (1, req_id, type_),
            "MarketDataType",
            reqId=req_id,
            marketDataType=type_,
        )

    def tick_req_params(self, req_id: int) -> bytes:
        return self._message(
            IN.TICK_REQ_PARAMS,
            (req_id, "0.01", "9c0001", 3),
            "TickReqParams",
            reqId=req_id,
            minTick="0.01",
            bboExchange="9c0001",
            snapshotPermissions=3,
        )

    def tick(self, req_id: int, tick: Tick, *, delayed: bool) -> bytes:
        type_ = DELAYED[tick.type] if delayed else tick.type
        if isinstance(tick, PriceTick):
            return self.tick_price(req_id, type_, tick.price, spell(tick.size))
        if isinstance(tick, SizeTick):
            size = tick.size
            if tick.type == TickTypeEnum.VOLUME and self.server_version < VOLUME_IN_SHARES_SINCE:
                size //= 100
            return self.tick_size(req_id, type_, spell(size))
        if isinstance(tick, GenericTick):
            return self.tick_generic(req_id, type_, tick.value)
        return self.tick_string(req_id, type_, tick.value)

    def tick_price(self, req_id: int, type_: int, price: float, size: str) -> bytes:
        return self._message(
            IN.TICK_PRICE,
            (TICK_MESSAGE_VERSION, req_id, type_, float(price), size, 0),
            "TickPrice",
            reqId=req_id,
            tickType=type_,
            price=price,
            size=size,
            attrMask=0,
        )

    def tick_size(self, req_id: int, type_: int, size: str) -> bytes:
        return self._message(
            IN.TICK_SIZE,
            (TICK_MESSAGE_VERSION, req_id, type_, size),
            "TickSize",
            reqId=req_id,
            tickType=type_,
            size=size,
        )

    def tick_string(self, req_id: int, type_: int, value: str) -> bytes:
        return self._message(
            IN.TICK_STRING,
            (TICK_MESSAGE_VERSION, req_id, type_, value),
            "TickString",
            reqId=req_id,
            tickType=type_,
            value=value,
        )

    def tick_generic(self, req_id: int, type_: int, value: float) -> bytes:
        return self._message(
            IN.TICK_GENERIC,
            (TICK_MESSAGE_VERSION, req_id, type_, value),
            "TickGeneric",
            reqId=req_id,
            tickType=type_,
            value=value,
        )

    def burst(
        self,
        req_id: int,
        prices: Sequence[float],
        size: float,
        total_bytes: int | None,
        *,
        delayed: bool,
    ) -> bytes:
        """Write one TICK_PRICE message per price, all together exactly `total_bytes` if given.

        What is missing to that is filled by a tick string message before the prices and a longer
        spelling of the last one's size.

        Raises
        ------
        ValueError
            If there is no price, or the messages are longer than `total_bytes` as they are.
        """
        if not prices:
            raise ValueError("a burst needs at least one price")
        type_ = TickTypeEnum.DELAYED_LAST if delayed else TickTypeEnum.LAST
        spelled = spell(size)
        *first, last = (self.tick_price(req_id, type_, price, spelled) for price in prices)
        ticks = b"".join(first)
        if total_bytes is None:
            return ticks + last
        missing = total_bytes - len(ticks) - len(last)
        if missing < 0:
            raise ValueError(f"the burst is {-missing} bytes longer than {total_bytes}")
        # A protobuf message's length fields grow with its text, by 2 bytes at the most.
        room = missing - len(self.tick_string(req_id, TickTypeEnum.LAST_EXCH, "")) - 2
        filler = self.tick_string(req_id, TickTypeEnum.LAST_EXCH, "Q" * room) if room > 0 else b""
        spelled = lengthen(spelled, missing - len(filler))
        return filler + ticks + self.tick_price(req_id, type_, prices[-1], spelled)

    def tick_snapshot_end(self, req_id: int) -> bytes:
        return self._message(IN.TICK_SNAPSHOT_END, (1, req_id), "TickSnapshotEnd", reqId=req_id)

    # Contracts

    def contract_details(self, req_id: int, stock: Stock) -> bytes:
        market = "NMS" if stock.primary_exchange == "NASDAQ" else stock.symbol
        hours = _trading_hours("0400", "2000")
        liquid_hours = _trading_hours("0930", "1600")
        rules = ",".join(["26"] * len(VALID_EXCHANGES.split(",")))
        last_trade_date = [""] if self.server_version >= LAST_TRADE_DATE_SINCE else []
        ineligibility_reasons = [0] if self.server_version >= INELIGIBILITY_REASONS_SINCE else []
        fields = (
            *(req_id, stock.symbol, "STK", ""),
            *last_trade_date,
            *(0, "", "SMART", "USD", stock.symbol, market, market, stock.con_id, 0.01),
            *("", ORDER_TYPES, VALID_EXCHANGES, 1, 0, stock.long_name, stock.primary_exchange),
            *("", "Technology", "Computers", "Computers", EXCHANGE_ZONE, hours, liquid_hours),
            *("", 0, 0, 1, "", "", rules, "", "COMMON", "0.0001", "0.0001", 100),
            *ineligibility_reasons,
        )
        return self._message(
            IN.CONTRACT_DATA,
            fields,
            "ContractData",
            reqId=req_id,
            contract={
                "conId": stock.con_id,
                "symbol": stock.symbol,
                "secType": "STK",
                "exchange": "SMART",
                "primaryExch": stock.primary_exchange,
                "currency": "USD",
                "localSymbol": stock.symbol,
                "tradingClass": market,
            },
            contractDetails={
                "marketName": market,
                "minTick": "0.01",
                "orderTypes": ORDER_TYPES,
                "validExchanges": VALID_EXCHANGES,
                "priceMagnifier": 1,
                "longName": stock.long_name,
                "industry": "Technology",
                "category": "Computers",
                "subcategory": "Computers",
                "timeZoneId": EXCHANGE_ZONE,
                "tradingHours": hours,
                "liquidHours": liquid_hours,
                "aggGroup": 1,
                "marketRuleIds": rules,
                "stockType": "COMMON",
                "minSize": "0.0001",
                "sizeIncrement": "0.0001",
                "suggestedSizeIncrement": "100",
            },
        )

    def contract_details_end(self, req_id: int) -> bytes:
        return self._message(IN.CONTRACT_DATA_END, (1, req_id), "ContractDataEnd", reqId=req_id)

    # Past bars

    def historical_data(self, req_id: int, bars: Sequence[Bar], begin: str, end: str) -> bytes:
        """Write bars, and that these are all."""
        values = [
            {
                "date": str(bar.time),
                "open": bar.open,
                "high": bar.high,
                "low": bar.low,
                "close": bar.close,
                "volume": spell(bar.volume),
                "WAP": spell(bar.value / bar.volume),
                "barCount": bar.trades,
            }
            for bar in bars
        ]
        apart = self.server_version >= HISTORY_ENDS_APART_SINCE
        fields = (
            req_id,
            *(() if apart else (begin, end)),
            len(bars),
            *(field for each in values for field in each.values()),
        )
        told = self._message(
            IN.HISTORICAL_DATA, fields, "HistoricalData", reqId=req_id, historicalDataBars=values
        )
        return told + self._historical_data_end(req_id, begin, end) if apart else told

    def _historical_data_end(self, req_id: int, begin: str, end: str) -> bytes:
        return self._message(
            HISTORICAL_DATA_END,
            (req_id, begin, end),
            "HistoricalDataEnd",
            reqId=req_id,
            startDateStr=begin,
            endDateStr=end,
        )

    # Orders, and the ends of lists that are empty here

    def open_order(self, order_id: int) -> bytes:
        """Write an open order, in text form no more than its id."""
        return self._message(IN.OPEN_ORDER, (order_id,), "OpenOrder", orderId=order_id)

    def open_order_end(self) -> bytes:
        return self._message(IN.OPEN_ORDER_END, (1,), "OpenOrdersEnd")

    def completed_orders_end(self) -> bytes:
        return self._message(IN.COMPLETED_ORDERS_END, (), "CompletedOrdersEnd")

    def execution_details_end(self, req_id: int) -> bytes:
        return self._message(
            IN.EXECUTION_DATA_END, (1, req_id), "ExecutionDetailsEnd", reqId=req_id
        )

    def account_download_end(self, account: str) -> bytes:
        return self._message(
            IN.ACCT_DOWNLOAD_END, (1, account), "AccountDataEnd", accountName=account
        )

    def account_summary_end(self, req_id: int) -> bytes:
        return self._message(IN.ACCOUNT_SUMMARY_END, (1, req_id), "AccountSummaryEnd", reqId=req_id)

    def account_update_multi_end(self, req_id: int) -> bytes:
        return self._message(
            IN.ACCOUNT_UPDATE_MULTI_END, (1, req_id), "AccountUpdateMultiEnd", reqId=req_id
        )

    def position_end(self) -> bytes:
        return self._message(IN.POSITION_END, (1,), "PositionEnd")

    def position_multi_end(self, req_id: int) -> bytes:
        return self._message(IN.POSITION_MULTI_END, (1, req_id), "PositionMultiEnd", reqId=req_id)


def _trading_hours(opens: str, closes: str) -> str:
    """Spell today's and the next four days' hours as TWS does; weekends are closed."""
    today = datetime.now(ZoneInfo(EXCHANGE_ZONE)).date()
    days = [today + timedelta(days=ahead) for ahead in range(5)]
    return ";".join(
        f"{day:%Y%m%d}:{opens}-{day:%Y%m%d}:{closes}"
        if day.weekday() < 5
        else f"{day:%Y%m%d}:CLOSED"
        for day in days
    )
