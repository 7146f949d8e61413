"""What a publisher's frames say; pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEAD = struct.Struct(">BHI")
_BASIC_PUBLISH = struct.pack(">HH", 60, 40)
_METHOD, _HEADER, _BODY, _END = 1, 2, 3, 0xCE


@dataclass(frozen=True, slots=True)
class Published:
    """One `basic.publish` with its content."""

    channel: int
    exchange: str
    routing_key: str
    mandatory: bool
    raw_properties: bytes
    body: bytes


def read_publish(frames: bytes) -> Published:
    """The message in `frames`, which must be those of exactly one; `ValueError` if they are not."""
    parts = _split(frames)
    if len(parts) < 2 or parts[0][0] != _METHOD or parts[1][0] != _HEADER:
        raise ValueError("a message begins with a method and a header")
    channel, method, header = parts[0][1], parts[0][2], parts[1][2]
    if method[:4] != _BASIC_PUBLISH:
        raise ValueError("the method is not basic.publish")
    if any(kind != _BODY or number != channel for kind, number, _ in parts[2:]) or parts[1][1] != channel:
        raise ValueError("the frames are not one message's")
    exchange, at = _short(method, 6)
    routing_key, at = _short(method, at)
    body = b"".join(payload for _, _, payload in parts[2:])
    if len(body) != struct.unpack_from(">Q", header, 4)[0]:
        raise ValueError("the body is not as long as its header says")
    return Published(channel, exchange, routing_key, bool(method[at] & 1), header[12:], body)


def _split(frames: bytes) -> list[tuple[int, int, bytes]]:
    parts: list[tuple[int, int, bytes]] = []
    at = 0
    while at < len(frames):
        kind, channel, size = _HEAD.unpack_from(frames, at)
        end = at + 7 + size
        if frames[end] != _END:
            raise ValueError("a frame does not end where it should")
        parts.append((kind, channel, frames[at + 7 : end]))
        at = end + 1
    return parts


def _short(data: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(), end
