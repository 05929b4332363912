"""Messages out of their frames, in each form of the protocol."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibapi.decoder import Decoder
from ibapi.message import IN
from ibapi.wrapper import EWrapper
from tws import every_form

from newshead.tws.decode import NEEDED, MessageReader
from newshead.tws.failures import GatewayError
from newshead.tws.ticks import tick_reader
from simulator.encode import Encoder
from simulator.stocks import Stock
from simulator.wire import glue

LAST = 4
STOCK = Stock("AAPL", 1, "NASDAQ", "Apple")
MESSAGES: list[Callable[[Encoder], bytes]] = [
    lambda encoder: encoder.tick_price(1000, LAST, 5.25, "100"),
    lambda encoder: encoder.tick_price(1001, 1, 5.0, "0.5"),
    lambda encoder: encoder.tick_size(1000, 5, "100"),
    lambda encoder: encoder.tick_string(1000, 45, "1795555555"),
    lambda encoder: encoder.error(-1, 2104, "OK:usfarm"),
    lambda encoder: encoder.error(1000, 200, ""),
    lambda encoder: encoder.managed_accounts("DU1,DU2"),
    lambda encoder: encoder.next_valid_id(1),
    lambda encoder: encoder.market_data_type(1000, 1),
    lambda encoder: encoder.tick_req_params(1000),
    lambda encoder: encoder.contract_details(1002, STOCK),
    lambda encoder: encoder.contract_details_end(1002),
    lambda encoder: encoder.open_order_end(),
]


CALLBACKS = [
    *("error", "managedAccounts", "nextValidId", "marketDataType", "tickReqParams"),
    *("contractDetails", "contractDetailsEnd", "openOrderEnd"),
]


class Recorder(EWrapper):  # type: ignore[misc]
    """Notes what is read, in its order."""

    def __init__(self) -> None:
        self.read: list[Any] = []
        for name in CALLBACKS:
            setattr(self, name, partial(self._note, name))

    def _note(self, name: str, *values: Any) -> None:
        self.read.append((name, *(str(getattr(value, "contract", value)) for value in values)))


def read(server_version: int, *frames: bytes) -> tuple[list[Any], MessageReader]:
    """All that a reader makes of frames, in its order."""
    recorder = Recorder()
    reader = MessageReader(
        Decoder(recorder, server_version),
        server_version,
        tick_reader(server_version),
        lambda kind: recorder.read.append(("skipped", kind)),
    )
    for frame in frames:
        for tick in reader.read(frame[4:]):
            recorder.read.append(tick)
    return recorder.read, reader


@every_form
@settings(max_examples=60, deadline=None)
@given(messages=st.lists(st.sampled_from(MESSAGES), min_size=1, max_size=6))
def test_messages_in_one_frame_are_read_as_those_in_frames_of_their_own(
    server_version: int, messages: list[Callable[[Encoder], bytes]]
) -> None:
    encoder = Encoder(server_version)
    frames = [message(encoder) for message in messages]
    together, reader = read(server_version, glue(*frames))
    assert together == read(server_version, *frames)[0]
    assert len(together) == len(messages)
    assert not reader.skipped


def garbled(server_version: int, kind: int) -> bytes:
    """A message, in its frame, whose body nobody can read."""
    if server_version >= 206:
        return glue(b"\0\0\0\0" + (200 + kind).to_bytes(4, "big") + b"\xff\xff")
    begin = kind.to_bytes(4, "big") if server_version >= 201 else b"%d\0" % kind
    return glue(b"\0\0\0\0" + begin + b"?\0")


@every_form
@pytest.mark.parametrize("kind", [*NEEDED])
def test_what_newshead_needs_is_not_skipped(kind: int, server_version: int) -> None:
    with pytest.raises(GatewayError, match="cannot read"):
        read(server_version, garbled(server_version, kind))


@every_form
@pytest.mark.parametrize("kind", [IN.OPEN_ORDER, IN.ORDER_STATUS, IN.CONTRACT_DATA, 199])
def test_all_else_that_cannot_be_read_is_skipped_and_told_once(
    kind: int, server_version: int, caplog: pytest.LogCaptureFixture
) -> None:
    one = garbled(server_version, kind)
    calls, reader = read(server_version, one, Encoder(server_version).next_valid_id(1), one)
    assert [calls[0], calls[-1]] == [("skipped", kind)] * 2
    assert [call[0] for call in calls[1:-1]] == ["nextValidId"]
    assert reader.describe_skipped().startswith("2 ")
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "Skipped" in line


@every_form
@pytest.mark.parametrize("rest", [b"9\0", b"\0", b"what", b"\0\0\0\1", b"\0\0\0\xc9\xff"])
def test_what_stands_behind_a_message_and_is_none_is_counted(
    rest: bytes, server_version: int
) -> None:
    tick = Encoder(server_version).tick_price(1000, LAST, 5.25, "100")
    if server_version >= 206:
        rest = b"\0" + rest
    calls, reader = read(server_version, glue(tick, b"\0\0\0\0" + rest))
    assert calls == [(1000, LAST, 5.25, 100)]
    assert reader.describe_skipped() == "1 pieces behind TICK_PRICE messages"


@every_form
@pytest.mark.parametrize("what", [b"", b"what\0", b"\xff\xff\xff\xff1\0", b"\0\0\0\0"])
def test_a_frame_that_begins_with_no_kind_is_broken_framing(
    what: bytes, server_version: int
) -> None:
    with pytest.raises(GatewayError, match="of no kind"):
        read(server_version, b"\0\0\0\0" + what)
