"""Which addresses a gate keeps from workers, in every form that they come in."""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentforge.gateway.addresses import concern, parse_address

NOT_PUBLIC = [
    ("0.0.0.0", "an unspecified address"),
    ("0.1.2.3", "an unspecified address"),
    ("10.0.0.5", "a private address"),
    ("100.64.0.1", "a shared address"),
    ("100.127.255.255", "a shared address"),
    ("127.0.0.1", "a loopback address"),
    ("127.255.0.9", "a loopback address"),
    ("169.254.1.1", "a link-local address"),
    ("172.16.0.1", "a private address"),
    ("172.31.255.255", "a private address"),
    ("192.0.0.8", "a reserved address"),
    ("192.0.2.1", "a reserved address"),
    ("192.88.99.1", "a reserved address"),
    ("192.168.1.1", "a private address"),
    ("198.19.0.1", "a private address"),
    ("198.51.100.7", "a reserved address"),
    ("203.0.113.9", "a reserved address"),
    ("224.0.0.251", "a multicast address"),
    ("239.255.255.250", "a multicast address"),
    ("240.0.0.1", "a reserved address"),
    ("255.255.255.255", "a reserved address"),
    ("169.254.169.254", "a cloud's metadata service"),
    ("168.63.129.16", "a cloud's metadata service"),
    ("100.100.100.200", "a cloud's metadata service"),
    ("::", "an unspecified address"),
    ("::1", "a loopback address"),
    ("::7f00:1", "a reserved address"),
    ("fd00:ec2::254", "a cloud's metadata service"),
    ("fd12:3456::1", "a private address"),
    ("fc00::1", "a private address"),
    ("fe80::1", "a link-local address"),
    ("fe80::1%lo", "a link-local address"),
    ("febf::1", "a link-local address"),
    ("fec0::1", "a private address"),
    ("ff02::1", "a multicast address"),
    ("2001:db8::1", "a reserved address"),
    ("2001:2::1", "a reserved address"),
    ("3fff::1", "a reserved address"),
    ("5f00::1", "a reserved address"),
    ("100::1", "a reserved address"),
    ("4000::1", "a reserved address"),
    ("64:ff9b:1::10.0.0.1", "a private address"),
]
PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001:82a::200e",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
]
FORBIDDEN_IPV4 = [IPv4Network(f"{address}/32") for address, _ in NOT_PUBLIC if ":" not in address]


@pytest.mark.parametrize(("address", "what"), NOT_PUBLIC)
def test_what_is_not_public_is_named(address: str, what: str) -> None:
    found = parse_address(address)
    assert found is not None
    assert concern(found) == what


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_of_no_concern(address: str) -> None:
    found = parse_address(address)
    assert found is not None
    assert concern(found) is None


def forms(inner: int) -> dict[str, IPv6Address]:
    return {
        "NAT64": IPv6Address(0x0064FF9B << 96 | inner),
        "6to4": IPv6Address(0x2002 << 112 | inner << 80 | 1),
        "Teredo, its client": IPv6Address(0x20010000 << 96 | 0x01010101 << 64 | ~inner & 0xFFFFFFFF),
        "Teredo, its server": IPv6Address(0x20010000 << 96 | inner << 64 | ~0x01010101 & 0xFFFFFFFF),
        "ISATAP": IPv6Address(0x2A00 << 112 | 0x5EFE << 32 | inner),
        "ISATAP, global": IPv6Address(0x2A00 << 112 | 0x02005EFE << 32 | inner),
    }


@given(st.sampled_from(FORBIDDEN_IPV4), st.data())
def test_an_ipv4_address_is_found_in_every_ipv6_form(network: IPv4Network, data: st.DataObject) -> None:
    inner = int(network.network_address)
    what = concern(IPv4Address(inner))
    assert what is not None
    for form, address in forms(inner).items():
        told = concern(address)
        assert told is not None, form
        assert told.startswith(f"{what} ({IPv4Address(inner)} as "), form
    assert parse_address(f"::ffff:{IPv4Address(inner)}") == IPv4Address(inner)
    assert concern(IPv6Address(0xFFFF << 32 | inner)) is not None


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_no_ipv4_address_that_python_knows_as_not_global_passes(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert concern(address) is not None


@given(
    st.one_of(
        st.integers(0, 2**128 - 1),
        st.integers(0, 2**125 - 1).map(lambda low: 1 << 125 | low),
        st.integers(0, 2**105 - 1).map(lambda low: 0x20010000 << 96 | low),
    ).map(IPv6Address)
)
def test_no_ipv6_address_outside_of_global_unicast_passes(address: IPv6Address) -> None:
    if address in IPv6Network("64:ff9b::/96") or address.ipv4_mapped:
        return
    if not address.is_global or address.is_multicast or address not in IPv6Network("2000::/3"):
        embedded = address.sixtofour or address.teredo
        assert embedded or concern(address) is not None


def test_an_address_of_the_host_itself_is_no_public_one(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel(socket.socket):
        """A machine with 93.184.216.34 on one of its interfaces."""

        asked: list[str] = []

        def connect(self, address: tuple[str, int]) -> None:
            self.asked.append(address[0])

        def getsockname(self) -> tuple[str, int]:
            return "93.184.216.34", 40000

    monkeypatch.setattr(socket, "socket", Kernel)
    assert concern(IPv4Address("93.184.216.34")) == "an address of the host itself"
    assert concern(IPv4Address("93.184.216.35")) is None


def test_the_address_that_the_kernel_would_send_from_is_the_hosts_own() -> None:
    """Only seen with a real kernel; loopback is the one address that every machine has."""
    from agentforge.gateway.addresses import _own

    assert _own(IPv4Address("127.0.0.1")) == "an address of the host itself"
    assert _own(IPv4Address("192.0.2.1")) is None
