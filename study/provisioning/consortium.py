"""The consortium file: who takes part, under which host names, and how long certificates last.

One frozen dataclass a table of ``consortium.toml``. It holds nothing secret, so it may be mailed
around. Knows nothing of keys.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table, read_toml, refuse_unknown

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME_BYTES = 64  # what an X.509 name may hold (RFC 5280, appendix A.1)
_HOST_CHARACTERS = 253
_DEFAULT_PORT = 8443


def check_host(host: str) -> str:
    """``host`` as certificates and comparisons write it: a DNS name or an IP address.

    Raises:
        ValueError: Neither; upper case, wildcards and zones are not accepted.
    """
    try:
        if "%" in host:
            raise ValueError
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        named = all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()
        if not named or len(host) > _HOST_CHARACTERS:
            raise ValueError(
                f"is {host!r}; expected a lower-case DNS name or an IP address"
            ) from None
        return host
    if address.is_unspecified or address.is_multicast:
        raise ValueError(f"is {host!r}; nobody can connect to that address") from None
    return str(address)


def check_name(field_name: str, name: str) -> None:
    """Raise ``ValueError`` unless ``name`` can stand in a file name and on a terminal."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field_name} is {name!r}; expected lower-case letters, digits, hyphens")


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The host names as written in certificates, each once."""
    checked = []
    for i, host in enumerate(hosts):
        try:
            checked.append(check_host(host))
        except ValueError as error:
            raise ValueError(f"hosts[{i}] {error}") from error
    if len(set(checked)) < len(checked):
        raise ValueError("hosts names the same host twice")
    return tuple(checked)


@dataclass(frozen=True)
class ConsortiumSection:
    """``[consortium]``: what it is called; stands in every certificate."""

    name: str

    def __post_init__(self) -> None:
        size = len(self.name.encode())
        if not self.name.isprintable() or self.name != self.name.strip() or not size:
            raise ValueError(f"name is {self.name!r}; expected printable text")
        if size > _NAME_BYTES:
            raise ValueError(f"name has {size} bytes; it must have {_NAME_BYTES} or fewer")


@dataclass(frozen=True)
class CoordinatorSection:
    """``[coordinator]``: where hospitals connect to.

    Attributes:
        hosts: Every name and address they may use; the certificate is good for these alone.
        port: Where the proxy in front of the SuperLink listens.
    """

    hosts: tuple[str, ...]
    port: int = _DEFAULT_PORT

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", _check_hosts(self.hosts))
        if not self.hosts:
            raise ValueError("hosts is empty; at least one is needed")
        if not 1 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}; it must be from 1 to 65535")


@dataclass(frozen=True)
class ValiditySection:
    """``[validity]``: for how many days certificates hold, and when to warn before they end."""

    authority_days: int = 3650
    certificate_days: int = 365
    warn_days: int = 30

    def __post_init__(self) -> None:
        for name, low, high in (
            ("authority_days", 1, 7300),
            ("certificate_days", 1, min(825, self.authority_days)),
            ("warn_days", 0, self.certificate_days - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be from {low} to {high}")


@dataclass(frozen=True)
class HospitalSection:
    """``[[hospitals]]``: one that may ask for a kit.

    Attributes:
        name: Lower-case letters, digits and hyphens; names files and stands in its certificate.
        hosts: Names its own machines use among themselves, if they speak TLS to one another. With
            none its certificate proves who it is as a client and cannot serve.
    """

    name: str
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("name", self.name)
        object.__setattr__(self, "hosts", _check_hosts(self.hosts))


@dataclass(frozen=True)
class Consortium:
    """A checked consortium file.

    No host is named by two parties: a certificate for it would let one pass for the other.
    """

    consortium: ConsortiumSection
    coordinator: CoordinatorSection
    hospitals: tuple[HospitalSection, ...]
    validity: ValiditySection = field(default_factory=ValiditySection)

    def __post_init__(self) -> None:
        if not self.hospitals:
            raise ValueError("hospitals is empty; at least one is needed")
        owner = dict.fromkeys(self.coordinator.hosts, "the coordinator")
        seen: set[str] = set()
        for hospital in self.hospitals:
            if hospital.name in seen:
                raise ValueError(f"hospitals names {hospital.name!r} twice")
            seen.add(hospital.name)
            for host in hospital.hosts:
                if host in owner:
                    raise ValueError(
                        f"host {host!r} belongs to both {owner[host]} and {hospital.name}"
                    )
                owner[host] = hospital.name

    @classmethod
    def read(cls, path: Path) -> Consortium:
        """The consortium file at ``path``.

        Raises:
            BadInput: Naming file, table, key and what was expected.
        """
        return cls.parse(read_toml(path), path.name)

    @classmethod
    def parse(cls, tables: Mapping[str, Any], where: str) -> Consortium:
        """A consortium from parsed tables; ``where`` names the file in messages."""
        refuse_unknown(tables, ("consortium", "coordinator", "hospitals", "validity"), where)
        rows = tables.get("hospitals", [])
        if not isinstance(rows, list):
            raise BadInput(f"{where} [[hospitals]] is {rows!r}; expected a list of tables")
        try:
            return cls(
                from_table(
                    ConsortiumSection, tables.get("consortium", {}), f"{where} [consortium]"
                ),
                from_table(
                    CoordinatorSection, tables.get("coordinator", {}), f"{where} [coordinator]"
                ),
                tuple(
                    from_table(HospitalSection, row, f"{where} [[hospitals]] {i + 1}:")
                    for i, row in enumerate(rows)
                ),
                from_table(ValiditySection, tables.get("validity", {}), f"{where} [validity]"),
            )
        except ValueError as error:
            raise BadInput(f"{where}: {error}") from error

    @property
    def name(self) -> str:
        """What the consortium is called."""
        return self.consortium.name

    def hospital(self, name: str) -> HospitalSection:
        """The hospital called ``name``.

        Raises:
            BadInput: There is none.
        """
        for hospital in self.hospitals:
            if hospital.name == name:
                return hospital
        known = ", ".join(hospital.name for hospital in self.hospitals)
        raise BadInput(f"hospital {name!r} is not in the consortium file; known: {known}")
