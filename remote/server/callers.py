"""From where a request came, for whoever limits, notes or binds something by that."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address

from starlette.types import Scope


def address_in(scope: Scope) -> str:
    """The caller's address: behind a trusted proxy that which it forwards (uvicorn has put it there). Empty if nobody can tell.

    One address is written in one way: an IPv4 address that came by a socket for IPv6 is the IPv4 address.
    """
    client = scope.get("client")
    if not client:
        return ""
    try:
        address = ip_address(client[0])
    except ValueError:  # what a proxy forwards may be a name
        return str(client[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
