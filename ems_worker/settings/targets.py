"""Decides which gRPC targets are on this machine; https://grpc.github.io/grpc/core/md_doc_naming.html defines them."""

import ipaddress
import re
import urllib.parse

_ADDRESSES = ("ipv4:", "ipv6:")
# host, host:port, [v6], [v6]:port.
_HOST = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:@/,?#%\s]+))(?::\d+)?")


def is_local(target: str) -> bool:
    """Whether every address of the target is on this machine. Decided from the text alone: names are not looked up.

    A target that can't be parsed is not local, nor is one that something else resolves (`xds:`, or a DNS server that
    the target names).
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _ADDRESSES:
        if target.startswith(scheme):
            # gRPC decodes the target before it splits the list.
            addresses = urllib.parse.unquote(target.removeprefix(scheme)).removeprefix("///").split(",")
            return all(_is_loopback(address) for address in addresses)
    name = target.removeprefix("dns:").removeprefix("///") if target.startswith("dns:") else target
    # gRPC resolves a target without a known scheme by DNS.
    return _is_loopback(urllib.parse.unquote(name))


def _is_loopback(address: str) -> bool:
    match = _HOST.fullmatch(address)
    if match is None:
        return False
    return is_loopback((match["bracketed"] or match["plain"]).lower())


def is_loopback(host: str) -> bool:
    """Whether a host, given without port or brackets, is this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
