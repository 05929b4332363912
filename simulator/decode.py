"""Messages from a client to the gateway, out of their text or protobuf form."""

from typing import Any, Final, NamedTuple

from ibapi.message import OUT

from simulator.history import Query
from simulator.stocks import ContractQuery
from simulator.wire import (
    PROTOBUF_MESSAGE_OFFSET,
    RAW_MESSAGE_ID_SINCE,
    WireError,
    protobuf_class,
)


class Asked(NamedTuple):
    """What a client asked for, as far as the simulator reads it."""

    kind: str
    """The request's name in ibapi (`reqMktData`), or its number where the simulator has no use
    for it (`message 3`)."""
    req_id: int = -1
    contract: ContractQuery = ContractQuery()
    value: str = ""
    """The one other thing that matters: client id, account or market data type."""
    snapshot: bool = False
    """Whether a snapshot is wanted."""
    history: Query = Query()
    """Which past bars are wanted."""
    known: bool = True

    @property
    def detail(self) -> str:
        """What else it says, for the record."""
        return self.contract.primary_exchange or self.value or self.history.detail

    @property
    def number(self) -> int:
        """`value` as a number, where it is one.

        Raises
        ------
        WireError
            If it is none.
        """
        try:
            return int(self.value)
        except ValueError as error:
            raise WireError(f"{self.kind} with {self.value!r}") from error


class _Layout(NamedTuple):
    """Where a request's fields are. In text form the request id is the second field, or the first
    of those that have no version, and the contract's follow it."""

    kind: str
    protobuf: str = ""
    has_req_id: bool = False
    has_contract: bool = False
    value_field: int = 0
    value_name: str = ""
    has_version: bool = True


_LAYOUTS: Final = {
    OUT.REQ_MKT_DATA: _Layout("reqMktData", "MarketDataRequest", True, True),
    OUT.CANCEL_MKT_DATA: _Layout("cancelMktData", "CancelMarketData", True),
    OUT.REQ_OPEN_ORDERS: _Layout("reqOpenOrders"),
    OUT.REQ_ACCT_DATA: _Layout(
        "reqAccountUpdates",
        "AccountDataRequest",
        value_field=2,
        value_name="acctCode",
    ),
    OUT.REQ_EXECUTIONS: _Layout("reqExecutions", "ExecutionRequest", True),
    OUT.REQ_IDS: _Layout("reqIds"),
    OUT.REQ_CONTRACT_DATA: _Layout("reqContractDetails", "ContractDataRequest", True, True),
    OUT.REQ_HISTORICAL_DATA: _Layout(
        "reqHistoricalData", "HistoricalDataRequest", True, True, has_version=False
    ),
    OUT.CANCEL_HISTORICAL_DATA: _Layout("cancelHistoricalData", "CancelHistoricalData", True),
    OUT.SET_SERVER_LOGLEVEL: _Layout("setServerLogLevel"),
    OUT.REQ_AUTO_OPEN_ORDERS: _Layout("reqAutoOpenOrders"),
    OUT.REQ_ALL_OPEN_ORDERS: _Layout("reqAllOpenOrders"),
    OUT.REQ_MANAGED_ACCTS: _Layout("reqManagedAccts"),
    OUT.REQ_CURRENT_TIME: _Layout("reqCurrentTime"),
    OUT.REQ_MARKET_DATA_TYPE: _Layout(
        "reqMarketDataType", "MarketDataTypeRequest", value_field=1, value_name="marketDataType"
    ),
    OUT.REQ_POSITIONS: _Layout("reqPositions"),
    OUT.CANCEL_POSITIONS: _Layout("cancelPositions"),
    OUT.REQ_ACCOUNT_SUMMARY: _Layout("reqAccountSummary", "AccountSummaryRequest", True),
    OUT.CANCEL_ACCOUNT_SUMMARY: _Layout("cancelAccountSummary", "CancelAccountSummary", True),
    OUT.START_API: _Layout("startApi", "StartApiRequest", value_field=1, value_name="clientId"),
    OUT.REQ_POSITIONS_MULTI: _Layout("reqPositionsMulti", "PositionsMultiRequest", True),
    OUT.CANCEL_POSITIONS_MULTI: _Layout("cancelPositionsMulti", "CancelPositionsMulti", True),
    OUT.REQ_ACCOUNT_UPDATES_MULTI: _Layout(
        "reqAccountUpdatesMulti", "AccountUpdatesMultiRequest", True
    ),
    OUT.CANCEL_ACCOUNT_UPDATES_MULTI: _Layout(
        "cancelAccountUpdatesMulti", "CancelAccountUpdatesMulti", True
    ),
    OUT.REQ_COMPLETED_ORDERS: _Layout("reqCompletedOrders"),
}


def decode(payload: bytes, server_version: int) -> Asked:
    """Read one message of a client.

    Raises
    ------
    WireError
        If its fields are not what a message of its kind has.
    """
    try:
        if server_version >= RAW_MESSAGE_ID_SINCE:
            message_id, body = int.from_bytes(payload[:4], "big"), payload[4:]
        else:
            number, _, body = payload.partition(b"\0")
            message_id = int(number)
        if message_id > PROTOBUF_MESSAGE_OFFSET:
            return _from_protobuf(message_id - PROTOBUF_MESSAGE_OFFSET, body)
        return _from_text(message_id, body.decode().split("\0"))
    except (ValueError, IndexError) as error:
        raise WireError(f"unreadable message {payload[:100]!r}") from error


def _from_text(message_id: int, fields: list[str]) -> Asked:
    layout = _LAYOUTS.get(message_id)
    if layout is None:
        return Asked(f"message {message_id}", known=False)
    first = 1 if layout.has_version else 0
    return Asked(
        layout.kind,
        int(fields[first]) if layout.has_req_id else -1,
        _contract_from_text(fields[first + 1 : first + 13])
        if layout.has_contract
        else ContractQuery(),
        fields[layout.value_field] if layout.value_field else "",
        layout.kind == "reqMktData" and fields[16] == "1",
        _history_from_text(fields) if layout.kind == "reqHistoricalData" else Query(),
    )


def _history_from_text(fields: list[str]) -> Query:
    end, bar_size, duration, regular_hours, what, format_date = fields[14:20]
    return Query(end, duration, bar_size, what, regular_hours == "1", int(format_date))


def _contract_from_text(fields: list[str]) -> ContractQuery:
    con_id, symbol, sec_type, _, _, _, _, exchange, primary_exchange, currency, _, _ = fields
    return ContractQuery(int(con_id or 0), symbol, sec_type, exchange, primary_exchange, currency)


def _from_protobuf(message_id: int, body: bytes) -> Asked:
    from google.protobuf.message import DecodeError  # older releases of ibapi come without it

    layout = _LAYOUTS.get(message_id)
    if layout is None:
        return Asked(f"message {message_id}", known=False)
    if not layout.protobuf:
        return Asked(layout.kind)
    message = protobuf_class(layout.protobuf)()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise WireError(str(error)) from error
    return Asked(
        layout.kind,
        message.reqId if layout.has_req_id else -1,
        _contract_from_protobuf(message.contract) if layout.has_contract else ContractQuery(),
        str(getattr(message, layout.value_name)) if layout.value_name else "",
        layout.kind == "reqMktData" and message.snapshot,
        _history_from_protobuf(message) if layout.kind == "reqHistoricalData" else Query(),
    )


def _history_from_protobuf(message: Any) -> Query:
    return Query(
        message.endDateTime,
        message.duration,
        message.barSizeSetting,
        message.whatToShow,
        message.useRTH,
        message.formatDate,
    )


def _contract_from_protobuf(contract: Any) -> ContractQuery:
    return ContractQuery(
        contract.conId,
        contract.symbol,
        contract.secType,
        contract.exchange,
        contract.primaryExch,
        contract.currency,
    )
