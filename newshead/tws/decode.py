"""One message into IBKR's decoder, which calls the callbacks."""

import logging

from ibapi import comm
from ibapi.decoder import Decoder

from newshead.tws import failures
from newshead.tws.ticks import LIBRARY_KNOWS_PROTOBUF, PROTOBUF_ID, RAW_ID_SERVER_VERSION

logger = logging.getLogger(__name__)


def decode(decoder: Decoder, server_version: int, message: bytes) -> None:
    """Hand a message, without its length, to IBKR's decoder.

    Raises
    ------
    GatewayError
        The decoder cannot make sense of it.
    """
    try:
        if server_version >= RAW_ID_SERVER_VERSION:
            number, body = int.from_bytes(message[:4], "big"), message[4:]
        else:
            number_text, _, body = message.partition(b"\0")
            number = int(number_text)
        if number > PROTOBUF_ID and LIBRARY_KNOWS_PROTOBUF:
            decoder.processProtoBuf(body, number - PROTOBUF_ID)
            return
        fields = comm.read_fields(body)
        parameters = decoder.msgId2handleInfo[number].wrapperParams
        # The library would only log it. The version's field stands for `self`.
        if parameters is not None and len(parameters) != len(fields):
            raise ValueError(f"{len(fields)} fields instead of {len(parameters)}")
        if LIBRARY_KNOWS_PROTOBUF:
            decoder.interpret(fields, number)
        else:
            decoder.interpret(comm.read_fields(message))
    except Exception as problem:
        logger.debug("Undecodable message %r", message[:200], exc_info=True)
        raise failures.unreadable(problem) from problem
