"""The certificates at work: Python's ssl, grpc and Flower's own readers decide, not our code."""

from __future__ import annotations

from argparse import Namespace
from concurrent import futures
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wardround.study.provisioning.authority import renew, revoke, sign_request
from wardround.study.provisioning.hospital import install_kit

World = Any
Tls = Any


def both(world: World, tls: Tls, name: str = "north", host: str = "127.0.0.1") -> str:
    """A hospital with its installed kit meets the coordinator's server, with the list in force."""
    coordinator, hospital = world.coordinator, world.hospital(name)
    server = tls.server(coordinator.server, coordinator.authority, coordinator.revocations)
    return str(tls.handshake(server, tls.client(hospital.certificate, hospital.authority), host))


@pytest.mark.parametrize("host", ["127.0.0.1", "coordinator.example"])
def test_hospital_and_coordinator_accept_each_other(world: World, tls: Tls, host: str) -> None:
    assert both(world, tls, host=host) == ""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "example"])
def test_another_host_name_is_refused(world: World, tls: Tls, host: str) -> None:
    assert "client: " in both(world, tls, host=host)
    assert "mismatch" in both(world, tls, host=host)


def test_a_client_without_certificate_is_refused(world: World, tls: Tls) -> None:
    coordinator = world.coordinator
    server = tls.server(coordinator.server, coordinator.authority)
    client = tls.client(None, world.hospital("north").authority)
    assert "peer did not return a certificate" in tls.handshake(server, client, "127.0.0.1")


def test_an_expired_server_is_refused(world: World, tls: Tls) -> None:
    coordinator = world.coordinator
    renew(world.terms, coordinator, world.now - timedelta(days=400))
    server = tls.server(coordinator.server, coordinator.authority)
    client = tls.client(world.hospital("north").certificate, coordinator.authority)
    assert "certificate has expired" in tls.handshake(server, client, "127.0.0.1")


def test_an_expired_hospital_is_refused(make_world: Any, tls: Tls) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    world = make_world(now=now - timedelta(days=400))
    world.enrol("north")
    renew(world.terms, world.coordinator, now)
    assert "certificate has expired" in both(world, tls)
    assert "server: " in both(world, tls)


def test_a_revoked_hospital_is_refused(world: World, tls: Tls) -> None:
    world.enrol("west")
    revoke(world.coordinator, "north", "laptop stolen", world.now)
    assert "certificate revoked" in both(world, tls, "north")
    assert both(world, tls, "west") == ""


def test_every_certificate_a_revoked_hospital_ever_had_is_refused(world: World, tls: Tls) -> None:
    hospital, coordinator = world.hospital("north"), world.coordinator
    old = world.root / "old.pem"
    old.write_bytes(hospital.certificate.read_bytes())
    later = world.now + timedelta(seconds=5)
    world.request("north", later, renew=True)
    kit = sign_request(world.request_path("north"), coordinator, later, renew=True)
    install_kit(kit, hospital, later, renew=True)
    assert both(world, tls) == ""
    revoke(coordinator, "north", "left", later)
    server = tls.server(coordinator.server, coordinator.authority, coordinator.revocations)
    for pem in (old, hospital.certificate):
        client = tls.client(pem, hospital.authority)
        assert "certificate revoked" in tls.handshake(server, client, "127.0.0.1")


def test_a_hospital_cannot_pass_for_the_coordinator(world: World, tls: Tls) -> None:
    """With every name in reach: north may not serve at all, south only under its own host."""
    world.enrol("south")
    ca = world.coordinator.authority
    for name, host, accepted in (
        ("north", "127.0.0.1", False),
        ("south", "127.0.0.1", False),
        ("south", "coordinator.example", False),
        ("south", "localhost", True),
    ):
        server = tls.server(world.hospital(name).certificate, ca)
        client = tls.client(world.hospital("north").certificate, ca)
        assert (tls.handshake(server, client, host) == "") is accepted, (name, host)


def test_grpc_accepts_the_one_file_for_key_and_certificate(world: World) -> None:
    import grpc

    coordinator, hospital = world.coordinator, world.hospital("north")
    ca, served = coordinator.authority.read_bytes(), coordinator.server.read_bytes()
    own = hospital.certificate.read_bytes()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    credentials = grpc.ssl_server_credentials([(served, served)], ca, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        trust = grpc.ssl_channel_credentials(ca, own, own)
        with grpc.secure_channel(f"127.0.0.1:{port}", trust) as channel:
            grpc.channel_ready_future(channel).result(timeout=30)
    finally:
        server.stop(None).wait()


def test_flower_reads_the_node_key(world: World) -> None:
    """Flower's own function; when it changes its form, this says so."""
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import uses_nist_ec_curve
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    path = str(world.hospital("north").node)
    asked = Namespace(auth_supernode_private_key=path, auth_supernode_public_key=None)
    found = _try_setup_client_authentication(asked)
    assert found is not None
    assert uses_nist_ec_curve(found[1])
    registered = load_ssh_public_key(world.coordinator.node("north").read_bytes())
    assert registered == found[1]
