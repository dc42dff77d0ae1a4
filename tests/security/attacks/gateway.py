"""The model door: other people's tokens, keys and models, other addresses, and HTTP that is none."""

import json
import re
import socket
import time
from typing import List, Optional

from . import guest
from .network import ask_http, everything
from .processes import REAL_KEY
from .registry import World, attack, canary_in

__all__ = ["post"]

_OWN_TOKEN = "a token is good on the door of its own worker, while its run goes on"
_ONE_PLACE = "the gateway goes to the endpoint of the run's own model and nowhere else"
_CHAT = "/v1/chat/completions"


def post(
    path: str = _CHAT, *, key: Optional[str] = None, model: str = "default", extra: bytes = b"", host: bytes = b"door"
) -> bytes:
    """Ask a model through the door and return the whole answer, head included."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    head = b"POST %s HTTP/1.1\r\nHost: %s\r\n%s" % (path.encode(), host, guest.token(key)) + extra
    head += b"Content-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    return ask_http(guest.door(), head + body)


def _accepted(answer: bytes) -> Optional[str]:
    return "a model answered" if re.match(rb"HTTP/1.[01] 200", answer) else None


@attack("host", _OWN_TOKEN)
def forged_token(world: World) -> Optional[str]:
    """Ask a model with tokens that were made up"""
    own = guest.own_token()
    guesses = [
        "af-run-" + "a" * 43,
        own[:-1] + ("a" if own[-1] != "a" else "b"),
        own.upper(),
        own[:20],
        "",
        "af-run-",
        "null",
    ]
    return next(filter(None, (_accepted(post(key=each)) for each in guesses)), None)


@attack("host", _OWN_TOKEN)
def foreign_token(world: World) -> Optional[str]:
    """Ask a model with the token of a run in another worker"""
    return _accepted(post(key=world.victim["token"]))


@attack("host", _OWN_TOKEN)
def replayed_token(world: World) -> Optional[str]:
    """Ask a model with the token of a run that has ended"""
    return _accepted(post(key=world.spent_token))


@attack("host", _OWN_TOKEN)
def no_token(world: World) -> Optional[str]:
    """Ask a model, and for the list of models, without a token"""
    for request in (
        b"GET /v1/models HTTP/1.0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
    ):
        if _accepted(ask_http(guest.door(), request)):
            return "answered"
    return None


@attack("host", "a token holds the one model of its run")
def other_model(world: World) -> Optional[str]:
    """Ask another model of the project than the run's own"""
    names = ["costly", "scripted-costly", "openai:other", "costly/../default", "../costly"]
    return next(filter(None, (_accepted(post(model=each)) for each in names)), None)


@attack("host", "a token holds the one model of its run")
def list_models(world: World) -> Optional[str]:
    """See which models the project has"""
    said = ask_http(guest.door(), b"GET /v1/models HTTP/1.0\r\n" + guest.token() + b"\r\n")
    return "the list has it" if b"costly" in said else None


@attack("host", "what goes back is searched for the key, and the key is taken out")
def key_by_echo(world: World) -> Optional[bytes]:
    """Have the endpoint tell the key that it was sent: as text, header, status line and error"""
    for wish in ("body", "header", "error", "reason", "split"):
        found = REAL_KEY.search(post(extra=b"X-Wish: %s\r\n" % wish.encode()))
        if found:
            return found.group()
    return None


@attack("host", "what goes back is searched for the key, and the key is taken out")
def key_by_stream(world: World) -> Optional[bytes]:
    """Have the endpoint tell the key in a stream, in pieces"""
    body = b'{"model": "default", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nX-Wish: stream\r\n" + guest.token()
    said = ask_http(guest.door(), head + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    found = REAL_KEY.search(said) or REAL_KEY.search(_texts(said))
    return found.group() if found else None


def _texts(stream: bytes) -> bytes:
    """Return the texts of a stream's deltas as a client puts them together."""
    texts: List[str] = []
    for line in stream.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data: {"):
            try:
                texts += [each["delta"].get("content") or "" for each in json.loads(line[6:])["choices"]]
            except (ValueError, KeyError):
                pass
    return "".join(texts).encode()


@attack("host", _ONE_PLACE, canary="metadata")
def absolute_address(world: World) -> Optional[bytes]:
    """Use the door as a proxy: a request with a whole address"""
    ways = (b"GET http://169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n%sConnection: close\r\n\r\n",)
    ways += (b"GET //169.254.169.254/latest HTTP/1.1\r\nHost: 169.254.169.254\r\n%sConnection: close\r\n\r\n",)
    return next(filter(None, (canary_in(ask_http(guest.door(), way % guest.token())) for way in ways)), None)


@attack("host", _ONE_PLACE, canary="tcp")
def connect_method(world: World) -> Optional[bytes]:
    """Use the door as a proxy: CONNECT to a port of the host"""
    request = b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n" % (world.tcp_port, guest.token())
    with socket.create_connection(guest.door(), timeout=2) as connection:
        connection.sendall(request)
        time.sleep(0.1)
        try:
            connection.sendall(b"hello")
        except OSError:
            pass
        return canary_in(everything(connection))


@attack("host", _ONE_PLACE, canary="scripted")
def path_traversal(world: World) -> Optional[bytes]:
    """Leave the endpoint's `/v1` by the path of the request"""
    ways = ["/v1/../canary", "/v1/chat/completions/../../../canary", "/v1/%2e%2e/canary", "/canary", "//canary"]
    ways += ["/v1/chat/completions/..%2f..%2f..%2fcanary", "/v1/chat/completions?/../../../canary", "/v1//../canary"]
    ways += ["/v1/chat/completions#/../../canary", "/v1/chat/completions;/../../../canary", "/v1\\..\\canary"]
    return next(filter(None, (canary_in(post(way)) for way in ways)), None)


@attack("host", _ONE_PLACE, canary="tcp")
def host_header(world: World) -> Optional[bytes]:
    """Send the request elsewhere by its headers"""
    place = b"127.0.0.1:%d" % world.tcp_port
    extra = b"X-Forwarded-Host: %s\r\nX-Forwarded-For: %s\r\nForwarded: host=%s\r\nX-Original-URL: http://%s/\r\n" % (
        (place,) * 4
    )
    extra += b"Proxy: http://%s\r\nX-Rewrite-URL: /canary\r\nBase-Url: http://%s\r\n" % (place, place)
    return canary_in(post(extra=extra, host=place))


@attack("host", "one request in is one request out, made anew", judge="smuggled")
def smuggled_request(world: World) -> Optional[str]:
    """Hide a second request in the body of the first, for the endpoint to take it as one of the host's"""
    hidden = b"GET /v1/models?smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    chunked = b'5\r\n{"a":\r\n0\r\n\r\n' + hidden
    for extra in (
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
    ):
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\n" + guest.token() + extra
        ask_http(guest.door(), head + b"\r\n" + chunked, wait_s=0.5)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\n" + guest.token()
    ask_http(
        guest.door(), head + b"X-A: b\rGET /v1/models?smuggled HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", wait_s=0.5
    )
    post(extra=b"X-B: a\n\nGET /v1/models?smuggled HTTP/1.1\r\n")
    return None


@attack("host", "headers that carry keys are the host's alone", judge="other-key")
def own_key(world: World) -> Optional[str]:
    """Have the host send another key than the real one, or one beside it"""
    post(extra=b"api-key: sk-of-the-attacker\r\nx-api-key: sk-of-the-attacker\r\nCookie: sk-of-the-attacker\r\n")
    post(extra=b"Authorization: Bearer sk-of-the-attacker\r\n")
    post(extra=b"Connection: Authorization\r\n")
    return None


@attack("host", "a request has a largest size", alone=True, judge="hosts-memory", timeout_s=20.0)
def large_request(world: World) -> Optional[str]:
    """Fill the host's memory with one request"""
    size = 300 << 20
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\n" + guest.token() + b"Content-Length: %d\r\n\r\n" % size
    sent, block = 0, b"x" * (1 << 20)
    with socket.create_connection(guest.door(), timeout=5) as connection:
        connection.sendall(head)
        try:
            while sent < size:
                connection.sendall(block)
                sent += len(block)
        except OSError:
            pass
    return None


@attack("host", "a request has a largest head", timeout_s=20.0)
def large_head(world: World) -> Optional[str]:
    """Fill the host's memory with one header"""
    sent, block = 0, b"x" * 65536
    with socket.create_connection(guest.door(), timeout=5) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nX-Long: ")
        try:
            while sent < 64 << 20:
                connection.sendall(block)
                sent += len(block)
        except OSError:
            return None
    return "the host took %d MiB of a header" % (sent >> 20)


@attack(
    "host",
    "connections of one worker are counted, and slow ones closed",
    alone=True,
    judge="neighbours-model",
    timeout_s=15.0,
)
def slow_loris(world: World) -> Optional[str]:
    """Hold many connections open with requests that never end"""
    held = []
    for _ in range(300):
        try:
            connection = socket.create_connection(guest.door(), timeout=1)
            connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: d\r\nX-A: ")
            held.append(connection)
        except OSError:
            break
    time.sleep(1.0)
    return None
