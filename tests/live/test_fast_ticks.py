"""The tick messages that newshead reads itself, beside IBKR's decoder: the same comes of them."""

import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibapi import comm
from ibapi.const import NO_VALID_ID, UNSET_DOUBLE, UNSET_INTEGER
from ibapi.decoder import Decoder
from ibapi.ticktype import TickTypeEnum
from ibapi.wrapper import EWrapper
from tws import buffered, came, connected, serving, until, versions

import ibkr_client
from ibkr_client import ConnectionState, IBKRClient
from newshead.tws.decode import MessageReader
from newshead.tws.failures import GatewayError
from newshead.tws.ticks import (
    DAY_VOLUMES,
    HALTS,
    LIBRARY_KNOWS_PROTOBUF,
    PROTOBUF_ID,
    TRADE_SIZES,
    TRADE_TIMES,
    Tick,
    TickReader,
    shares,
    tick_reader,
)
from simulator.encode import Encoder
from simulator.wire import frame, protobuf_class

# Text, text after a raw id, protobuf; the oldest and the newest of each, and where sizes changed.
every_version = versions(176, 187, 200, 201, 205, 206, 220, 225, 226)

PRICE, SIZE, GENERIC, STRING = 1, 2, 45, 46
CLASSES = {PRICE: "TickPrice", SIZE: "TickSize", GENERIC: "TickGeneric", STRING: "TickString"}
CALLBACKS = {PRICE: "tickPrice", SIZE: "tickSize", GENERIC: "tickGeneric", STRING: "tickString"}
REQ_ID = 1000


def text_message(server_version: int, kind: int, fields: list[bytes]) -> bytes:
    """A message in text, without its length."""
    body = b"".join(field + b"\0" for field in fields)
    return (kind.to_bytes(4, "big") if server_version >= 201 else b"%d\0" % kind) + body


def protobuf_message(kind: int, values: dict[str, Any]) -> bytes:
    """A message in protobuf, without its length; a value that is None is missing."""
    there = {name: value for name, value in values.items() if value is not None}
    body: bytes = protobuf_class(CLASSES[kind])(**there).SerializeToString()
    return (PROTOBUF_ID + kind).to_bytes(4, "big") + body


class Recorder(EWrapper):  # type: ignore[misc]
    """Notes the tick callbacks."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def tickPrice(self, *values: Any) -> None:
        self.calls.append(("tickPrice", *values[:3]))

    def tickSize(self, *values: Any) -> None:
        self.calls.append(("tickSize", *values))

    def tickGeneric(self, *values: Any) -> None:
        self.calls.append(("tickGeneric", *values))

    def tickString(self, *values: Any) -> None:
        self.calls.append(("tickString", *values))


@functools.cache
def ibkrs_decoder(server_version: int) -> Decoder:
    """IBKR's decoder, which takes milliseconds to make."""
    return Decoder(EWrapper(), server_version)


def decoded(server_version: int, message: bytes) -> list[tuple[Any, ...]]:
    """The callbacks that IBKR's decoder calls for a message."""
    decoder = ibkrs_decoder(server_version)
    decoder.wrapper = recorder = Recorder()
    if not LIBRARY_KNOWS_PROTOBUF:
        decoder.interpret(comm.read_fields(message))
        return recorder.calls
    if server_version >= 201:
        number, body = int.from_bytes(message[:4], "big"), message[4:]
    else:
        number_text, _, body = message.partition(b"\0")
        number = int(number_text)
    if number > PROTOBUF_ID:
        decoder.processProtoBuf(body, number - PROTOBUF_ID)
    else:
        decoder.interpret(comm.read_fields(body), number)
    return recorder.calls


def spelled_out(kind: int, tick: tuple[int, int, float | None, int]) -> list[tuple[Any, ...]]:
    """The callbacks that a tick stands for."""
    req_id, tick_type, price, volume = tick
    if kind == SIZE and tick_type in TOLD_SIZES:
        return [("tickSize", req_id, tick_type, Decimal(volume))]
    if kind == GENERIC and tick_type in HALTS and price is not None:
        return [("tickGeneric", req_id, tick_type, price)]
    if kind != PRICE:
        return [(CALLBACKS[kind], req_id, tick_type)]
    assert price is not None
    size_type = SIZE_OF.get(tick_type)
    size = [] if size_type is None else [("tickSize", req_id, size_type, Decimal(volume))]
    return [("tickPrice", req_id, tick_type, price), *size]


TOLD_SIZES = (*TRADE_SIZES, *DAY_VOLUMES)
SIZE_OF = {
    TickTypeEnum.BID: TickTypeEnum.BID_SIZE,
    TickTypeEnum.ASK: TickTypeEnum.ASK_SIZE,
    TickTypeEnum.LAST: TickTypeEnum.LAST_SIZE,
    TickTypeEnum.DELAYED_BID: TickTypeEnum.DELAYED_BID_SIZE,
    TickTypeEnum.DELAYED_ASK: TickTypeEnum.DELAYED_ASK_SIZE,
    TickTypeEnum.DELAYED_LAST: TickTypeEnum.DELAYED_LAST_SIZE,
}


def what_counts(kind: int, calls: list[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    """Callbacks with sizes in whole shares, and without a size that is no trade's; what is
    missing is 0, as `tick_reader` says."""
    missing = {NO_VALID_ID: 0, UNSET_INTEGER: 0, UNSET_DOUBLE: 0.0}
    kept = []
    for name, req_id, tick_type, *values in calls:
        halt = name == "tickGeneric" and tick_type in HALTS and all(map(math.isfinite, values))
        if name == "tickSize" and (kind == PRICE or tick_type in TOLD_SIZES):
            values = [shares(*values)]
        elif kind != PRICE and not halt:
            values = []
        # As text, because NaN is not equal to itself.
        kept.append((name, *(repr(missing.get(v, v)) for v in (req_id, tick_type, *values))))
    return kept


HOSTILE_NUMBERS = [
    *("", "0", "-0", "-1", "+3", "007", "1e3", "1.5E7", "1E-5", "-2.5", "0.5", ".5", "5.", "."),
    *("NaN", "sNaN", "Infinity", "-Infinity", "1.7976931348623157E308", "2147483647", " 7 ", "1_0"),
    *("9223372036854775807", "-9223372036854775808", "9" * 10, "9" * 400, "1e999999999", "²", "٣"),
    *("0x10", "1,5", "None", "\\x31", "100\n"),
]
numbers = st.one_of(
    st.sampled_from(HOSTILE_NUMBERS),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.decimals(0, 10**9, places=4).map(lambda number: f"{number:f}"),
)
bytes_of_numbers = st.one_of(
    numbers.map(str.encode), st.binary(max_size=6).map(lambda text: text.replace(b"\0", b""))
)
tick_types = st.sampled_from([0, 1, 2, 3, 4, 5, 8, 45, 49, 66, 68, 71, 76, TickTypeEnum.NOT_SET])
normal_sizes = st.one_of(st.integers(0, 10**9 - 1).map(str), st.sampled_from(["0.5", "100.25"]))
normal_prices = st.floats(-1, 1e6).map(repr)


@st.composite
def text_fields(draw: st.DrawFn, kind: int) -> list[bytes]:
    """A tick message's fields, some of them odd, too few or too many."""
    normal = [st.just("6"), st.just(str(REQ_ID)), tick_types.map(str)]
    normal += {
        PRICE: [normal_prices, normal_sizes, st.sampled_from("0123")],
        SIZE: [normal_sizes],
        GENERIC: [normal_prices],
        STRING: [st.sampled_from(["1795555555", "Q", "", "é"])],
    }[kind]
    odd = draw(st.sets(st.integers(0, len(normal) - 1), max_size=2))
    fields = [
        draw(bytes_of_numbers) if number in odd else draw(field).encode()
        for number, field in enumerate(normal)
    ]
    if draw(st.integers(0, 9)) == 0:
        fields = fields[: draw(st.integers(0, len(fields)))]
    return fields + draw(st.lists(bytes_of_numbers, max_size=int(draw(st.integers(0, 9)) == 0)))


@st.composite
def protobuf_messages(draw: st.DrawFn, kind: int) -> bytes:
    """A tick message, some of its fields odd or missing; sometimes cut short or too long."""
    int32s = st.one_of(st.none(), st.sampled_from([-1, 0, 2**31 - 1, -(2**31)]))
    values: dict[str, Any] = {
        "reqId": draw(st.one_of(st.just(REQ_ID), int32s)),
        "tickType": draw(st.one_of(tick_types, int32s)),
    }
    sizes = st.one_of(st.none(), normal_sizes, numbers)
    if kind == PRICE:
        values["price"] = draw(st.one_of(st.none(), st.floats(-1, 1e6), st.floats()))
        values["size"] = draw(sizes)
        values["attrMask"] = draw(st.one_of(st.integers(0, 7), int32s))
    elif kind == SIZE:
        values["size"] = draw(sizes)
    elif kind == GENERIC:
        values["value"] = draw(st.one_of(st.none(), st.floats()))
    else:
        values["value"] = draw(st.one_of(st.none(), st.text(max_size=5)))
    message = protobuf_message(kind, values)
    end = draw(st.sampled_from([None] * 8 + [-1, -3]))
    return message[:end] + draw(
        st.sampled_from([b""] * 8 + [b"\x98\x06\x05", b"\xff", b"\x08\x07"])
    )


@every_version
@pytest.mark.parametrize("kind", CLASSES)
@settings(max_examples=150, deadline=None, print_blob=True)
@given(data=st.data())
def test_what_is_read_is_what_the_decoder_reads(
    kind: int, server_version: int, data: st.DataObject
) -> None:
    if server_version >= 206:
        message = data.draw(protobuf_messages(kind))
    else:
        message = text_message(server_version, kind, data.draw(text_fields(kind)))
    tick = tick_reader(server_version)(message)
    if tick is not None:
        read = what_counts(kind, spelled_out(kind, tick))
        assert read == what_counts(kind, decoded(server_version, message))


@every_version
@settings(max_examples=150, deadline=None, print_blob=True)
@given(data=st.data())
def test_every_price_that_the_decoder_can_read_is_read(
    server_version: int, data: st.DataObject
) -> None:
    if server_version >= 206:
        message = data.draw(protobuf_messages(PRICE))
    else:
        message = text_message(server_version, PRICE, data.draw(text_fields(PRICE)))
    try:
        calls = decoded(server_version, message)
    except Exception:
        return
    assert (read_whole(server_version, message) is None) == (calls == [])


def read_whole(server_version: int, message: bytes) -> Tick | None:
    """The tick in a message, whatever may stand behind it."""
    read_tick = tick_reader(server_version)
    if (tick := read_tick(message)) is not None:
        return tick
    reader = MessageReader(ibkrs_decoder(server_version), server_version, read_tick, lambda _: None)
    try:
        return next(reader.read(message), None)
    except GatewayError:
        # It is cut within its kind, which IBKR's decoder takes for one that it does not know.
        return None


@pytest.mark.parametrize("what", ["an older version", "fields left empty"])
@versions(176, 201)
def test_a_price_in_an_unusual_form_is_read(server_version: int, what: str) -> None:
    fields, price, size = {
        "an older version": ([b"3", b"1000", b"4", b"5.0", b"12.5", b"0"], 5.0, 13),
        "fields left empty": ([b"6", b"1000", b"4", b"", b"", b""], 0.0, 0),
    }[what]
    message = text_message(server_version, PRICE, fields)
    assert tick_reader(server_version)(message) == (REQ_ID, 4, price, size)


@every_version
def test_what_tws_sends_all_day_is_read_and_nothing_else(server_version: int) -> None:
    encoder, read = Encoder(server_version), tick_reader(server_version)
    for tick_type in (TickTypeEnum.BID, TickTypeEnum.LAST, TickTypeEnum.DELAYED_LAST):
        message = encoder.tick_price(REQ_ID, tick_type, 271.25, "100")
        assert read(message[4:]) == (REQ_ID, tick_type, 271.25, 100)
    for tick_type, size in itertools.product((0, 3, 5, 8), ("0", "100", "12.5", "1000000000")):
        message = encoder.tick_size(REQ_ID, tick_type, size)
        volume = {"12.5": 13}.get(size) or int(size)
        told = volume if tick_type in (TickTypeEnum.LAST_SIZE, TickTypeEnum.VOLUME) else 0
        assert read(message[4:]) == (REQ_ID, tick_type, None, told)
    assert read(encoder.tick_string(REQ_ID, 45, "1795555555")[4:]) == (REQ_ID, 45, 1795555555.0, 0)
    assert read(encoder.tick_string(REQ_ID, 84, "Q")[4:]) == (REQ_ID, 84, None, 0)
    assert read(encoder.tick_generic(REQ_ID, 49, 0.0)[4:]) == (REQ_ID, 49, 0.0, 0)
    for other in (
        encoder.error(REQ_ID, 200, "No security definition"),
        encoder.market_data_type(REQ_ID, 1),
        encoder.tick_req_params(REQ_ID),
        encoder.next_valid_id(1),
        frame(b""),
    ):
        assert read(other[4:]) is None


@every_version
def test_a_size_that_is_no_number_is_the_decoders_to_refuse(server_version: int) -> None:
    encoder, read = Encoder(server_version), tick_reader(server_version)
    for size in HOSTILE_NUMBERS:
        message = encoder.tick_price(REQ_ID, 4, 5.0, size)[4:]
        tick = read(message)
        if tick is None:
            with pytest.raises(ArithmeticError):
                decoded(server_version, message)
        else:
            assert 0 <= tick[3] < 2**31


# The client, with its own reader and with one made of IBKR's decoder


def decoders_reader(server_version: int) -> TickReader:
    """A reader that has IBKR's decoder read each tick message."""

    def read(message: bytes) -> Tick | None:
        try:
            calls = decoded(server_version, message)
        except Exception:
            return None
        if not calls:
            return None
        name, req_id, tick_type, *values = calls[0]
        if name == "tickPrice":
            return req_id, tick_type, *values, shares(calls[1][3]) if calls[1:] else 0
        if name == "tickSize" and tick_type in TOLD_SIZES:
            return req_id, tick_type, None, shares(*values)
        if name == "tickGeneric" and tick_type in HALTS and math.isfinite(*values):
            return req_id, tick_type, *values, 0
        if name == "tickString" and tick_type in TRADE_TIMES:
            return req_id, tick_type, int(*values), 0
        return req_id, tick_type, None, 0

    return read


def everything(server_version: int, dice: random.Random) -> Iterator[bytes]:
    """Tick messages of every kind that the decoder can read, of two requests and a third."""
    encoder = Encoder(server_version)
    types = [0, 1, 2, 3, 4, 5, 8, 66, 68, 71, 74]
    prices = [-1.0, 0.0, 0.0001, 5.25, 271.5, 12345678.9, math.nan, math.inf, UNSET_DOUBLE]
    sizes = ["0", "1", "100", "0.4", "99.5", "1e3", "-5", "NaN", "2147483647", "9" * 12]
    for _ in range(600):
        req_id = REQ_ID + dice.randrange(3)
        tick_type = dice.choice([4, 4, 68, *types])
        yield dice.choice(
            [
                encoder.tick_price(req_id, tick_type, dice.choice(prices), dice.choice(sizes)),
                encoder.tick_price(req_id, 4, dice.randrange(1, 10**6) / 64, dice.choice(sizes)),
                encoder.tick_price(req_id, 4, dice.randrange(1, 10**6) / 64, "300"),
                encoder.tick_size(req_id, tick_type, dice.choice(sizes)),
                encoder.tick_string(req_id, 45, str(dice.randrange(2**31))),
                encoder.tick_generic(req_id, 49, 0.0),
            ]
        )


@every_version
@pytest.mark.parametrize("market_data_type", [1, 3])
def test_the_same_trades_come_of_both_however_the_bytes_are_cut(
    server_version: int, market_data_type: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # noqa: T201 -- pytest shows it when the test fails
    dice = random.Random(seed)
    called: dict[int, list[tuple[Any, ...]]] = {1: [], 2: []}
    with (
        serving("AAPL", "MSFT", server_version=server_version, describing=False) as thread,
        ExitStack() as ends,
    ):
        clients = []
        for client_id, reader in ((1, tick_reader), (2, decoders_reader)):
            monkeypatch.setattr(ibkr_client, "tick_reader", reader)
            client = IBKRClient(
                "127.0.0.1",
                thread.gateway.port,
                client_id,
                lambda *trade, calls=called[client_id]: calls.append(trade[:3]),
                market_data_type,
            )
            ends.callback(client.disconnect_safely)
            assert client.connect_and_run(), client.failure
            client.update_subscriptions({"AAPL", "MSFT"})
            clients.append(client)
        until(lambda: sum(r.kind == "reqMktData" for r in list(thread.gateway.requests)) == 4)
        data = b"".join(everything(server_version, dice))
        for tick_type, price in ((68, 7.5), (4, 99999.0)):
            data += Encoder(server_version).tick_price(REQ_ID, tick_type, price, "1")
        while data:
            length = dice.choice([1, 3, 50, 1000, 5000])
            thread.call(thread.gateway.raw, data[:length])
            data = data[length:]
        for client in clients:
            until(came(client, "AAPL", 99999.0))
        own, decoders = (
            {
                ticker: [{**tick, "timestamp": None} for tick in ticks]
                for ticker, ticks in client.get_and_clear_buffer().items()
            }
            for client in clients
        )
        assert own == decoders
        assert set(own) == {"AAPL", "MSFT"}
        assert sum(map(len, own.values())) > 100
        sources = {tick["source"] for ticks in own.values() for tick in ticks}
        assert ("ibkr_delayed_last" in sources) == (market_data_type == 3)
        # The callback comes after the buffer.
        until(lambda: {len(calls) for calls in called.values()} == {sum(map(len, own.values()))})
        assert called[1] == called[2]
        assert clients[0].last_volume == clients[1].last_volume
        assert all(client.connected for client in clients)


@versions(176, 201, 225)
@pytest.mark.parametrize("own", [True, False], ids=["read here", "by the decoder"])
def test_every_kind_of_tick_is_a_sign_of_life_of_a_known_request_alone(
    server_version: int, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own:
        monkeypatch.setattr(ibkr_client, "tick_reader", lambda _: lambda _: None)
    encoder = Encoder(server_version)
    kinds: dict[str, Callable[[int], bytes]] = {
        "price": lambda req_id: encoder.tick_price(req_id, 1, 5.0, "100"),
        "size": lambda req_id: encoder.tick_size(req_id, 8, "100"),
        "string": lambda req_id: encoder.tick_string(req_id, 45, "1795555555"),
        "generic": lambda req_id: encoder.tick_generic(req_id, 49, 0.0),
    }
    with (
        serving("AAPL", server_version=server_version) as thread,
        connected(thread, "AAPL") as client,
    ):
        for message in kinds.values():
            before = client.last_data_at
            thread.call(thread.gateway.raw, message(REQ_ID))
            until(lambda before=before: client.last_data_at > before)  # type: ignore[misc]
        before = client.last_data_at
        for message in kinds.values():
            thread.call(thread.gateway.raw, message(REQ_ID + 7))
        for code, state in ((1100, ConnectionState.STALE), (1101, ConnectionState.READY)):
            thread.call(thread.gateway.send_error, code, "")
            until(lambda state=state: client.state is state)  # type: ignore[misc]
        assert client.last_data_at == before
        assert buffered(client, "AAPL") == []
