"""gRPC targets, as https://grpc.github.io/grpc/core/md_doc_naming.html has them: which of them are on this machine."""

import ipaddress
import re
import urllib.parse

_ADDRESSES = ("ipv4:", "ipv6:")
# host, host:port, [v6], [v6]:port.
_HOST = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:@/,?#%\s]+))(?::\d+)?")


def is_local(target: str) -> bool:
    """Whether it leads nowhere but to this machine, by its words alone: names aren't looked up.

    All addresses of a list have to be. What isn't understood isn't, nor what others resolve (`xds:`, or a DNS server
    that the target names).
    """
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _ADDRESSES:
        if target.startswith(scheme):
            # gRPC decodes before it splits.
            addresses = urllib.parse.unquote(target.removeprefix(scheme)).removeprefix("///").split(",")
            return all(_is_loopback(address) for address in addresses)
    name = target.removeprefix("dns:").removeprefix("///") if target.startswith("dns:") else target
    # gRPC asks DNS for what has no scheme that it knows.
    return _is_loopback(urllib.parse.unquote(name))


def _is_loopback(address: str) -> bool:
    found = _HOST.fullmatch(address)
    if found is None:
        return False
    return is_loopback((found["bracketed"] or found["plain"]).lower())


def is_loopback(host: str) -> bool:
    """Whether a host, without a port or brackets, is this one."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
