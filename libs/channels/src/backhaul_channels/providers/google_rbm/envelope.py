"""The bytes that Google signs: what is read of a request, and nothing else.

Events come wrapped as Pub/Sub pushes them: ``{"message": {"data": "<base64>", …}, "subscription": …}``. The signature
covers what ``data`` decodes to. Whoever holds one signed event can put any attributes around it, so none is believed.
"""

from __future__ import annotations

from base64 import b64decode

import msgspec

from backhaul_channels.adapter import MalformedError

_FAULTS = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)


class _Message(msgspec.Struct):
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Envelope(msgspec.Struct):
    message: _Message | msgspec.UnsetType = msgspec.UNSET


_open = msgspec.json.Decoder(_Envelope).decode
_text = msgspec.json.Decoder(str).decode


def signed_bytes(body: bytes) -> bytes:
    """What ``body`` says and Google signs. Raises MalformedError.

    That is the decoded data of an envelope. A body that is no envelope is itself an event, and so is data that is an
    object instead of its base64: what stands there is then taken as it stands.
    """
    if body.lstrip(b" \t\r\n")[:1] == b"[":
        return body
    try:
        message = _open(body).message
        if message is msgspec.UNSET or message.data is msgspec.UNSET:
            return body
        data = bytes(message.data)
        return data if data[:1] == b"{" else b64decode(_text(data), validate=True)
    except _FAULTS as error:
        raise MalformedError("The body is no JSON, or message.data is neither base64 nor an object.") from error
    except ValueError as error:
        raise MalformedError("message.data is no base64.") from error
