"""Which addresses never leave the machine."""

import re
from ipaddress import ip_address

_SCHEME = re.compile(r"^(?:dns:(?://[^/]*/)?|ipv4:|ipv6:)")


def is_loopback(host: str) -> bool:
    """Whether a host's name or number is the machine's own; of names only "localhost" is."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def stays_here(target: str) -> bool:
    """Whether a gRPC target, such as "localhost:50551" or "unix:/run/stillwatch", stays on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    bare = _SCHEME.sub("", target)
    host = bare if bare.count(":") > 1 and not bare.startswith("[") else bare.rpartition(":")[0] or bare
    return is_loopback(host)


def peer_host(peer: str) -> str:
    """The network that a gRPC peer calls from: an IPv4 address, an IPv6 /64, or "unix".

    Args:
        peer: For example "ipv4:10.0.0.1:5000" or "ipv6:%5B::1%5D:5000".

    Returns:
        The peer without its port.
    """
    scheme, _, rest = peer.partition(":")
    host = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")[0].strip("[]")
    if scheme == "ipv6":
        # One caller may own all of a /64.
        return ip_address(host.partition("%")[0]).exploded[:19] if host else "ipv6"
    return host or scheme
