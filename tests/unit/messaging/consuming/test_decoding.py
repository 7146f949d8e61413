"""A handler gets what the content type says, or the message counts as undecodable; bytes are never guessed at."""

from __future__ import annotations

import contextlib
import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.messaging.amqp.frames import content_kind, decode_properties, has_headers
from dmq_core.messaging.consuming import decoding
from dmq_core.messaging.consuming.decoding import DecodingError, bytes_only, decode_message
from dmq_core.messaging.messages import MessageProperties


def decoded(body: bytes, content_type: str | None = None, content_encoding: str | None = None) -> object:
    return decode_message(body, MessageProperties(content_type=content_type, content_encoding=content_encoding))


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "message"),
    [
        (b'{"n": [1, null]}', "application/json", None, {"n": [1, None]}),
        (b"[1]", "Application/JSON; charset=utf-8", None, [1]),
        (b"1", "application/vnd.shop+json", None, 1),
        ("Grüße".encode(), None, None, "Grüße"),
        ("Grüße".encode(), "text/plain", None, "Grüße"),
        ("Grüße".encode("latin-1"), 'text/plain; charset="latin-1"', None, "Grüße"),
        ("Grüße".encode("utf-16"), "text/html", "utf-16", "Grüße"),
        ("Grüße".encode("latin-1"), None, "latin-1", "Grüße"),
        (b"\xff\x00", "application/octet-stream", None, b"\xff\x00"),
        (b"\xff\x00", "application/octet-stream", "binary", b"\xff\x00"),
        (b"\x89PNG", "image/png", None, b"\x89PNG"),
        (b"", None, None, ""),
        (gzip.compress(b"[1]", mtime=0), "application/json", "gzip", [1]),
        (zlib.compress(b"hello"), None, "Deflate", "hello"),
    ],
)
def test_a_body_becomes_what_its_type_says(
    body: bytes, kind: str | None, encoding: str | None, message: object
) -> None:
    assert decoded(body, kind, encoding) == message


@pytest.mark.parametrize(
    ("body", "kind", "encoding", "words"),
    [
        (b"\xff", None, None, "not utf-8"),
        (b"{", "application/json", None, "not JSON"),
        (b"[" * 100_000, "application/json", None, "not JSON"),
        (b"a", "text/plain; charset=klingon", None, "klingon"),
        (b"a", "text/plain", "hex", "hex"),
        (b"", None, "\0", "null character"),
        (b"plain", None, "gzip", "not compressed"),
        (gzip.compress(b"hello", mtime=0)[:-4], None, "gzip", "cut off"),
        (gzip.compress(b"hello", mtime=0) + b"more", None, "gzip", "runs on"),
    ],
)
def test_a_body_that_is_nothing_of_the_kind_is_undecodable(
    body: bytes, kind: str | None, encoding: str | None, words: str
) -> None:
    with pytest.raises(DecodingError, match=words):
        decoded(body, kind, encoding)


def test_a_small_body_cannot_swell_beyond_all_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "INFLATED_LIMIT", 1000)
    with pytest.raises(DecodingError, match="larger than"):
        decoded(gzip.compress(b"\0" * 5000, mtime=0), "application/octet-stream", "gzip")


def test_bytes_only_touches_nothing() -> None:
    assert bytes_only(b"[1]", MessageProperties(content_type="application/json")) == b"[1]"


@given(st.binary(max_size=200), st.text(max_size=20) | st.none(), st.text(max_size=20) | st.none())
def test_whatever_comes_is_a_message_or_undecodable(body: bytes, kind: str | None, encoding: str | None) -> None:
    with contextlib.suppress(DecodingError):
        decoded(body, kind, encoding)


@given(st.binary(max_size=60))
def test_a_look_at_the_type_survives_any_bytes_and_agrees_with_the_whole(raw: bytes) -> None:
    kind, encoding = content_kind(raw)
    headed = has_headers(raw)
    try:
        properties = decode_properties(raw)
    except ValueError:
        return
    assert kind.decode("utf-8", "backslashreplace") == (properties.content_type or "")
    assert encoding.decode("utf-8", "backslashreplace") == (properties.content_encoding or "")
    assert headed or not properties.headers
