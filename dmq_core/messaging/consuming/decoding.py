"""From the bytes of a message to what a handler gets: by its content type, never by guess."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from dmq_core.messaging.amqp.frames import content_kind, has_headers
from dmq_core.text import visible

if TYPE_CHECKING:
    from dmq_core.messaging.delivery.delivery import Delivery
    from dmq_core.messaging.messages import MessageProperties

Decode = Callable[[bytes, "MessageProperties"], object]
INFLATED_LIMIT: Final = 64 << 20
_BINARY: Final = frozenset({"", "identity", "binary", "8bit", "7bit"})
_DEFLATED: Final = frozenset({"gzip", "x-gzip", "deflate"})


class DecodingError(ValueError):
    """The body is not what its content type says; a decoder of your own may raise it, too.

    >>> decode_message(b"{", MessageProperties(content_type="application/json"))
    Traceback (most recent call last):
    dmq_core.messaging.consuming.decoding.DecodingError: the body is not JSON: ...
    """


class MessageHeaders(dict[str, object]):
    """The headers of a message; `delivery` tells the rest: routing key, exchange, properties, attempts.

    >>> from threading import Event
    >>> done = Event()
    >>> def handle(message: object, headers: MessageHeaders) -> bool:
    ...     print(message, headers["region"], headers.delivery.properties.content_type)
    ...     done.set()
    ...     return True
    >>> consumer = DirectConsumer(manager, "orders")
    >>> consumer.declare_queue()
    >>> with consumer.start_consuming(handle), DirectProducer(manager) as producer:
    ...     _ = producer.publish("orders", "a book", {"headers": {"region": "eu"}})
    ...     done.wait(timeout=10)
    a book eu text/plain
    True
    """

    __slots__ = ("delivery",)

    delivery: Delivery


def decode_message(body: bytes, properties: MessageProperties) -> object:
    """`body` by its content type: JSON as its value, text (or no type) as `str`, anything else as `bytes`.

    A charset may stand in the content type, or in the content encoding, which may also be gzip or deflate (up to 64 MiB
    of content). `DecodingError` if the body is nothing of the kind.

    >>> decode_message(b'{"title": "a book"}', MessageProperties(content_type="application/json"))
    {'title': 'a book'}
    """
    return _decoder(_raw(properties.content_type), _raw(properties.content_encoding))(body)


def bytes_only(body: bytes, properties: MessageProperties) -> bytes:
    """The body as it came, whatever its content type says.

    >>> consumer = DirectConsumer(manager, "orders", decode=bytes_only)
    >>> bytes_only(b"{", MessageProperties(content_type="application/json"))
    b'{'
    """
    return body


def message_of(delivery: Delivery, decode: Decode) -> object:
    """What the handler gets for `delivery`; `DecodingError` whatever way `decode` fails."""
    try:
        if decode is decode_message:
            # The first two properties are all that is needed; most messages are never asked for the others.
            return _decoder(*content_kind(delivery.raw_properties))(delivery.body)
        return decode(delivery.body, delivery.properties)
    except DecodingError:
        raise
    except Exception as error:  # neither the user's code nor a codec can be trusted with bytes from outside
        raise DecodingError(f"{type(error).__name__}: {visible(str(error))}") from error


def headers_of(delivery: Delivery) -> MessageHeaders:
    """The headers of `delivery`, with itself."""
    headers = MessageHeaders(delivery.properties.headers) if has_headers(delivery.raw_properties) else MessageHeaders()
    headers.delivery = delivery
    return headers


@lru_cache(maxsize=256)
def _decoder(content_type: bytes, content_encoding: bytes) -> Callable[[bytes], object]:
    media, _, parameters = content_type.decode("latin-1").lower().partition(";")
    media = media.strip()
    encoding = content_encoding.decode("latin-1").lower().strip()
    charset = _charset(parameters)
    inflated = encoding in _DEFLATED
    if not inflated and encoding not in _BINARY:
        charset = charset or encoding
    return _inflating(_of_media(media, charset or "utf-8")) if inflated else _of_media(media, charset or "utf-8")


def _of_media(media: str, charset: str) -> Callable[[bytes], object]:
    if media == "application/json" or media.endswith("+json"):
        return lambda body: _json(_text(body, charset))
    if not media or media.startswith("text/"):
        return lambda body: _text(body, charset)
    return bytes


def _charset(parameters: str) -> str:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            return value.strip().strip('"')
    return ""


def _text(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset)
    except (ValueError, LookupError) as error:
        raise DecodingError(f"the body is not {visible(charset)}: {visible(str(error))}") from error


def _json(text: str) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DecodingError(f"the body is not JSON: {visible(str(error))}") from error
    return value


def _inflating(decode: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def inflated(body: bytes) -> object:
        inflater = zlib.decompressobj(wbits=47)  # gzip or zlib, told by its first bytes
        try:
            content = inflater.decompress(body, INFLATED_LIMIT)
        except zlib.error as error:
            raise DecodingError(f"the body is not compressed as it says: {visible(str(error))}") from error
        if not inflater.eof or inflater.unused_data:
            raise DecodingError("the compressed body is cut off, runs on, or is larger than 64 MiB")
        return decode(content)

    return inflated


def _raw(text: str | None) -> bytes:
    return b"" if text is None else text.encode("latin-1", "replace")
