"""Which addresses a worker may reach only if its agent's `network` names them literally.

Everything that is not the public internet, as IANA's registries of special-purpose addresses have it (RFC 6890), and
every form in which an IPv6 address stands for such an IPv4 address. Python's own `is_global` differs between releases
and follows only some of these forms.
"""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

__all__ = ["METADATA_NAMES", "IPAddress", "concern", "parse_address"]

IPAddress = IPv4Address | IPv6Address

METADATA_NAMES = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)
"""Names by which clouds tell a machine its credentials."""

_METADATA = "a cloud's metadata service"
_PRIVATE = "a private address"
_LINK_LOCAL = "a link-local address"
_MULTICAST = "a multicast address"
_RESERVED = "a reserved address"

_IPV4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("169.254.169.254/32", _METADATA),
        ("169.254.170.2/32", _METADATA),  # containers on AWS
        ("168.63.129.16/32", _METADATA),  # Azure; a public address by its number
        ("100.100.100.200/32", _METADATA),  # Alibaba
        ("192.0.0.192/32", _METADATA),  # Oracle
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", _PRIVATE),
        ("100.64.0.0/10", "a shared address"),
        ("127.0.0.0/8", "a loopback address"),
        ("169.254.0.0/16", _LINK_LOCAL),
        ("172.16.0.0/12", _PRIVATE),
        ("192.0.0.0/24", _RESERVED),
        ("192.0.2.0/24", _RESERVED),  # documentation
        ("192.88.99.0/24", _RESERVED),  # was: the nearest 6to4 relay
        ("192.168.0.0/16", _PRIVATE),
        ("198.18.0.0/15", _PRIVATE),  # benchmarks
        ("198.51.100.0/24", _RESERVED),  # documentation
        ("203.0.113.0/24", _RESERVED),  # documentation
        ("224.0.0.0/4", _MULTICAST),
        ("240.0.0.0/4", _RESERVED),
    )
)
_IPV6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("fd00:ec2::254/128", _METADATA),  # AWS
        ("fd00:ec2::23/128", _METADATA),  # AWS, pods
        ("fd20:ce::254/128", _METADATA),  # Google
        ("::/128", "an unspecified address"),
        ("::1/128", "a loopback address"),
        ("64:ff9b:1::/48", _PRIVATE),  # NAT64 of one's own
        ("fc00::/7", _PRIVATE),
        ("fe80::/10", _LINK_LOCAL),
        ("fec0::/10", _PRIVATE),
        ("ff00::/8", _MULTICAST),
        ("2001:db8::/32", _RESERVED),  # documentation
        ("3fff::/20", _RESERVED),  # documentation
    )
)
_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_PROTOCOLS = IPv6Network("2001::/23")
_ISATAP = (0x00005EFE, 0x02005EFE)


def parse_address(text: str) -> IPAddress | None:
    """Return an address in its one form, an IPv4 address in IPv6 clothing as IPv4; None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id is None and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def concern(address: IPAddress) -> str | None:
    """Return what an address is if a worker may not reach it by a name: `a private address`; None if it is public."""
    if isinstance(address, IPv4Address):
        return _found_in(_IPV4, address) or _own(address)
    for form, inner in _inside(address):
        if (what := _found_in(_IPV4, inner)) is not None:
            return f"{what} ({inner} as {form})"
    return _found_in(_IPV6, address) or _elsewhere(address) or _own(address)


def _found_in(
    table: tuple[tuple[IPv4Network, str], ...] | tuple[tuple[IPv6Network, str], ...], address: IPAddress
) -> str | None:
    return next((what for network, what in table if address in network), None)


def _elsewhere(address: IPv6Address) -> str | None:
    if address in _NAT64 or address.ipv4_mapped is not None:
        return None  # as good as the address inside
    if address not in _UNICAST or (address in _PROTOCOLS and address not in _TEREDO):
        return _RESERVED
    return None


def _inside(address: IPv6Address) -> Iterator[tuple[str, IPv4Address]]:
    """Yield the IPv4 addresses that packets to an IPv6 address may end at, or pass by, with the way they are in it."""
    bits = int(address)
    if address.ipv4_mapped is not None:
        yield "IPv4-mapped", address.ipv4_mapped
    if address in _NAT64:
        yield "NAT64", IPv4Address(bits & 0xFFFFFFFF)
    if address in _6TO4:
        yield "6to4", IPv4Address(bits >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        yield "Teredo", IPv4Address(bits >> 64 & 0xFFFFFFFF)
        yield "Teredo", IPv4Address(~bits & 0xFFFFFFFF)
    if bits >> 32 & 0xFFFFFFFF in _ISATAP:
        yield "ISATAP", IPv4Address(bits & 0xFFFFFFFF)


def _own(address: IPAddress) -> str | None:
    """Say so if an address is one of this machine's own, public as it may be: no packet would leave the machine.

    Asks the kernel which address it would send from; nothing is sent.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((str(address), 9))
        if probe.getsockname()[0] == str(address):
            return "an address of the host itself"
    return None
