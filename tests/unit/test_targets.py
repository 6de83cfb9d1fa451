"""gRPC targets on this machine, the only ones that need no TLS, are distinguished from all others."""

import pytest

from ems_worker.settings import targets


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.8.8.8",
        "localhost:50051",
        "LOCALHOST:1",
        "ems.localhost:1",
        "[::1]:50051",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "dns:///127.0.0.1",
        "dns:///%6Cocalhost:50051",
        "%6Cocalhost:50051",
        "ipv4:127.0.0.1:50051",
        "ipv4:///127.0.0.1:50051",
        "ipv4:127.0.0.1:50051,127.0.0.2:50052",
        "ipv6:[::1]:50051",
        "ipv6:[::1]:50051,[::1]:50052",
        "ipv6:%5B::1%5D:50051",
        "unix:relative.sock",
        "unix:///run/ems.sock",
        "unix-abstract:ems",
    ],
)
def test_a_target_is_local_if_all_its_addresses_are(target: str) -> None:
    """Loopback addresses, names of localhost and Unix sockets are local, in every notation that gRPC accepts."""
    assert targets.is_local(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "10.0.0.5:50051",
        "orchestrator:50051",
        "localhost.example:50051",
        "127.0.0.1.example:50051",
        "0.0.0.0:50051",
        "[::]:50051",
        "127.0.0.1:50051,10.0.0.5:50051",
        "ipv4:127.0.0.1:50051,10.0.0.5:50051",
        "ipv4:10.0.0.5:50051,127.0.0.1:50051",
        "ipv4:127.0.0.1:50051%2C10.0.0.5:50051",
        "ipv4:127.0.0.1:50051,",
        "ipv4:",
        "ipv6:[::1]:50051,[2001:db8::5]:50051",
        "ipv6:::1",
        "IPV4:127.0.0.1:1",
        "dns://10.0.0.53/localhost:50051",
        "dns:///localhost:50051,10.0.0.5:50051",
        "xds:localhost",
        "xds:///127.0.0.1:50051",
        "vsock:1:2",
        "google-c2p:///localhost",
        "user@localhost:50051",
        "localhost@10.0.0.5:50051",
        "localhost:50051/path",
        "http://localhost:50051",
        "localhost:port",
    ],
)
def test_a_target_that_may_lead_to_another_machine_is_not_local(target: str) -> None:
    """One remote address is enough to make a target remote, and so is a resolver on another machine."""
    assert not targets.is_local(target)
