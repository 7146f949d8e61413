"""URLs of somebody else's cluster."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmq_core.endpoints import Credentials, NodeEndpoint, TlsSettings
from dmq_core.errors import InvalidInputError
from dmq_core.urls import BrokerUrl, Scheme, credentials_of, parse_url, plan_endpoints

hosts = st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z]{1,5}){0,2}", fullmatch=True) | st.sampled_from(["::1", "10.0.0.7"])
words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
schemes = st.sampled_from(Scheme)
ports = st.integers(1, 65535)


def spell(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@given(schemes, hosts, ports | st.none(), words, words, words)
def test_what_is_put_into_a_url_comes_out_of_it(
    scheme: Scheme, host: str, port: int | None, user: str, password: str, vhost: str
) -> None:
    at = f"{quote(user, safe='')}:{quote(password, safe='')}@{spell(host)}{'' if port is None else f':{port}'}"
    path = f"/{quote(vhost, safe='')}" if scheme.is_amqp else ""
    parsed = parse_url(f"{scheme}://{at}{path}")
    assert parsed == BrokerUrl(scheme, host, port or scheme.port, vhost if scheme.is_amqp else None, user, password)
    assert password not in repr(parsed) or password in repr(
        BrokerUrl(scheme, host, parsed.port, parsed.virtual_host, user)
    )


def parsed_or_told(url: str) -> BrokerUrl | str:
    try:
        return parse_url(url)
    except InvalidInputError as error:
        return error.what + error.hint


@given(st.text(max_size=60))
def test_any_text_is_a_broker_url_or_bad_input_that_does_not_repeat_it(text: str) -> None:
    secret = "hunter2hunter2"
    for url in (text, f"amqp://u:{secret}@{text}", f"u:{secret}@{text}", f"{text}://u:{secret}@h"):
        result = parsed_or_told(url)
        if isinstance(result, str):
            assert secret not in result
        else:
            assert result.host
            assert 0 < result.port < 65536


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "localhost:5672",
        "amqp:localhost",
        "amqp://",
        "amqp://:5672",
        "amqp://h:0",
        "amqp://h:65536",
        "amqp://h:port",
        "amqp://h/a/b",
        "amqp://h/%ff",
        "amqp://h?heartbeat=1",
        "amqp://h /",
        "amqp://h\n",
        "http://h/rabbit",
        "ftp://h",
        "http://[::1",
    ],
)
def test_a_url_that_leads_to_no_broker_is_bad_input(url: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_url(url)
    assert caught.value.hint


def test_a_url_copied_from_a_browser_is_understood() -> None:
    assert parse_url("https://broker:15671/#/queues").port == 15671
    assert parse_url("http://broker/api/").host == "broker"


@pytest.mark.parametrize("url", ["amqp://h", "amqp://h/", "http://h"])
def test_a_url_without_a_virtual_host_means_the_default_one(url: str) -> None:
    assert plan_endpoints([parse_url(url)])[0].endpoint.virtual_host == "/"


def test_the_other_port_of_the_same_host_is_guessed_near_first() -> None:
    (usual,) = plan_endpoints([parse_url("amqp://h")])
    assert [g.management_port for g in usual.guesses] == [15672]
    (third,) = plan_endpoints([parse_url("amqp://h:5674")])
    assert [g.management_port for g in third.guesses] == [15674, 15672]
    (api,) = plan_endpoints([parse_url("https://h:15673")])
    assert [g.amqp_port for g in api.guesses] == [5673, 5671]
    assert api.endpoint == NodeEndpoint("h", None, 15673, TlsSettings())


def test_an_amqp_and_a_management_url_of_one_host_are_one_endpoint_in_order() -> None:
    urls = ["amqp://h:5001/v", "amqp://h:5002", "http://h:8001", "http://h:8002"]
    planned = plan_endpoints([parse_url(u) for u in urls])
    assert [(p.endpoint.amqp_port, p.endpoint.management_port, p.endpoint.virtual_host) for p in planned] == [
        (5001, 8001, "v"),
        (5002, 8002, "/"),
    ]
    assert not any(p.guesses for p in planned)


def test_urls_with_and_without_tls_stay_apart() -> None:
    own = TlsSettings(ca_file="ca.pem")
    planned = plan_endpoints([parse_url("amqps://h"), parse_url("http://h")], own)
    assert [p.endpoint for p in planned] == [NodeEndpoint("h", 5671, None, own), NodeEndpoint("h", None, 15672)]


@given(st.lists(st.builds(BrokerUrl, schemes, hosts, ports, st.none()), min_size=1, max_size=8))
def test_every_url_is_in_exactly_one_endpoint(urls: list[BrokerUrl]) -> None:
    planned = plan_endpoints(urls)
    found = [(p.endpoint.host, port) for p in planned for port in _ports(p.endpoint)]
    assert sorted(found) == sorted((u.host, u.port) for u in set(urls))


def _ports(endpoint: NodeEndpoint) -> list[int]:
    return [port for port in (endpoint.amqp_port, endpoint.management_port) if port is not None]


def test_one_user_is_taken_from_the_urls_and_two_are_refused() -> None:
    mine, yours, nobody = (parse_url(u) for u in ("amqp://me:pw@a", "amqp://you:pw@b", "amqp://c"))
    assert credentials_of([nobody]) is None
    assert credentials_of([nobody, mine]) == Credentials("me", "pw")
    with pytest.raises(InvalidInputError, match="different users"):
        credentials_of([mine, yours])


@pytest.mark.parametrize(("host", "url"), [("::1", "amqp://[::1]:5672"), ("h", "amqp://h:5672")])
def test_an_endpoint_spells_its_url_so_that_it_can_be_read_again(host: str, url: str) -> None:
    endpoint = NodeEndpoint(host, 5672, None)
    assert endpoint.amqp_url == url
    assert parse_url(url).host == host
