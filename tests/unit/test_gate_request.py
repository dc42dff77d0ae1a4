"""The request that a gate reads: `CONNECT host:port` in every spelling, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.errors.sandbox import NetworkRefused
from agentforge.gateway.connect import end_of_head, read_request
from agentforge.gateway.destinations import Allowed, Destination, parse_destination

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9-]{0,20}[a-z0-9])?){1,4}", fullmatch=True)
PORTS = st.integers(1, 65535)


def refusal(head: bytes) -> NetworkRefused:
    with pytest.raises(NetworkRefused) as caught:
        read_request(head)
    return caught.value


@pytest.mark.parametrize(
    ("target", "destination"),
    [
        ("api.example.com:443", Destination("api.example.com", 443)),
        ("API.Example.COM:443", Destination("api.example.com", 443)),
        ("api.example.com.:443", Destination("api.example.com", 443)),
        ("bücher.example:443", Destination("xn--bcher-kva.example", 443)),
        ("BÜCHER.example:443", Destination("xn--bcher-kva.example", 443)),
        ("XN--bcher-kva.example:443", Destination("xn--bcher-kva.example", 443)),
        ("api。example。com:443", Destination("api.example.com", 443)),
        ("127。0。0。1:80", Destination("127.0.0.1", 80)),
        ("１２７.0.0.1:80", Destination("127.0.0.1", 80)),
        ("10.0.0.5:8443", Destination("10.0.0.5", 8443)),
        ("[::1]:9000", Destination("::1", 9000)),
        ("[0:0:0:0:0:0:0:1]:9000", Destination("::1", 9000)),
        ("[::ffff:10.0.0.5]:1", Destination("10.0.0.5", 1)),
        ("my_host:00443", Destination("my_host", 443)),
    ],
)
def test_a_destination_has_one_form(target: str, destination: Destination) -> None:
    assert parse_destination(target) == destination
    assert read_request(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()) == destination


@pytest.mark.parametrize(
    "target",
    [
        "",
        "api.example.com",
        "api.example.com:",
        ":443",
        "api.example.com:0",
        "api.example.com:65536",
        "api.example.com:443443",
        "api.example.com:+443",
        "api.example.com:４４３",
        "api.example.com:443:443",
        "user@api.example.com:443",
        "user:password@api.example.com:443",
        "https://api.example.com:443",
        "api.example.com/:443",
        "api%2eexample.com:443",
        "api.example.com..:443",
        "-api.example.com:443",
        "::1:443",
        "[::1]",
        "[127.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "[api.example.com]:443",
        "a" * 254 + ":443",
        "\u2024\u2024:443",
    ],
)
def test_what_is_no_destination_is_refused(target: str) -> None:
    with pytest.raises(ValueError):
        parse_destination(target)
    if target:
        assert refusal(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()).details["status"] == 400


@given(NAMES, PORTS, st.data())
def test_however_a_name_is_spelled_it_is_the_same_destination(name: str, port: int, data: st.DataObject) -> None:
    spelled = "".join(data.draw(st.sampled_from([letter, letter.upper()])) for letter in name)
    spelled += data.draw(st.sampled_from(["", "."]))
    assert parse_destination(f"{spelled}:{port}") == parse_destination(f"{name}:{port}")
    again = parse_destination(str(parse_destination(f"{spelled}:{port}")))
    assert again == parse_destination(f"{name}:{port}")


@given(st.text(max_size=80))
def test_any_text_is_a_destination_or_a_value_error(text: str) -> None:
    try:
        found = parse_destination(text)
    except ValueError:
        return
    assert parse_destination(str(found)) == found
    assert str(found).isascii()
    assert str(found) == str(found).lower()
    assert 0 < found.port < 65536


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for head in (data, b"CONNECT " + data, b"CONNECT a.example:443 HTTP/1.1\r\n" + data):
        try:
            end_of_head(head)
            read_request(head + b"\r\n\r\n")
            status = 200
        except NetworkRefused as error:
            status = error.details["status"]
        assert status in (200, 400, 405, 505)


@given(st.binary(max_size=60), st.integers(0, 80))
def test_a_head_ends_where_it_ends_however_it_comes(rest: bytes, cut: int) -> None:
    head = b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n"
    whole = head + rest
    assert end_of_head(whole) == len(head)
    assert end_of_head(whole[: min(cut, len(head) - 1)]) == 0


@pytest.mark.parametrize(
    ("head", "status", "says"),
    [
        (b"GET http://api.example.com/ HTTP/1.1\r\n\r\n", 405, "plain HTTP is not passed on"),
        (b"POST HTTP://api.example.com:443/x HTTP/1.0\r\nContent-Length: 3\r\n\r\n", 405, "plain HTTP"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "no `GET`"),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 405, "no `OPTIONS`"),
        (b"connect a.example:443 HTTP/1.1\r\n\r\n", 405, "no `connect`"),
        (b"CONNECT a.example:443 HTTP/2.0\r\n\r\n", 505, "HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\n", 505, "HTTP/1.1"),
        (b"CONNECT a.example:443\r\n\r\n", 400, "first line"),
        (b"CONNECT  a.example:443 HTTP/1.1\r\n\r\n", 400, "first line"),
        (b"CONNECT a.example:443 HTTP/1.1 \r\n\r\n", 400, "first line"),
        (b"CONNECT a.example:443\tHTTP/1.1\r\n\r\n", 400, "first line"),
        (b"CONNECT a.example:443 b HTTP/1.1\r\n\r\n", 400, "first line"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400, "header"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nA : b\r\n\r\n", 400, "header"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nA: b\rc\r\n\r\n", 400, "header"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nA: \x00\r\n\r\n", 400, "header"),
        (b"CONNECT a.example:443 HTTP/1.1\r\nno header\r\n\r\n", 400, "header"),
        (b"CONNECT \xff\xfe:443 HTTP/1.1\r\n\r\n", 400, "UTF-8"),
    ],
)
def test_what_is_no_connect_is_refused_with_what_would_be_right(head: bytes, status: int, says: str) -> None:
    error = refusal(head)
    assert (error.details["status"], error.code, error.details["why"]) == (status, "AF450", "request")
    assert says in error.message


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (b"\x16\x03\x01\x02\x00", "it is TLS"),
        (b"\x05\x01\x00", "it is SOCKS"),
        (b"\x00", "it is not HTTP"),
        (b"\r\nCONNECT", "it is not HTTP"),
        (b"CONNECT a.example:443 HTTP/1.1\n\n", "CR and LF"),
        (b"CONNECT a.example:443 HTTP/1.1\nA: b\n\nrest\r\n\r\n", "CR and LF"),
    ],
)
def test_what_can_become_no_request_is_refused_at_once(first: bytes, says: str) -> None:
    with pytest.raises(NetworkRefused, match=says):
        end_of_head(first)


@given(st.sampled_from(["api.example.com:443", "10.0.0.5:8443", "[::1]:9000"]), PORTS)
def test_a_port_is_the_listed_one_exactly(listed: str, port: int) -> None:
    allowed = Allowed([listed])
    found = parse_destination(listed)
    assert found in allowed
    assert (Destination(found.host, port) in allowed) == (port == found.port)


@pytest.mark.parametrize("near", ["x.example.com", "example.com", "xapi.example.com", "api.example.com.evil.example"])
def test_a_name_near_a_listed_one_is_not_listed(near: str) -> None:
    assert Destination(near, 443) not in Allowed(["api.example.com:443"])


def test_an_entry_that_nothing_can_match_allows_nothing_and_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    allowed = Allowed(["[::::]:443", "API.example.com:443"])
    assert str(allowed) == "`api.example.com:443`"
    assert "`[::::]:443`, which nothing can reach" in caplog.text
    assert str(Allowed([])) == "nothing"


def test_a_long_list_is_not_told_at_length() -> None:
    told = str(Allowed([f"a{number}.test:443" for number in range(1000)]))
    assert told.startswith("`a0.test:443`, `a1.test:443`, ")
    assert told.endswith("`a9.test:443` and 990 more")
