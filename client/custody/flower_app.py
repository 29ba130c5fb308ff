"""The relay for Flower's own executor: a ClientApp that asks the custodian of its node.

A bundle that names ``wardround.client.custody.flower_app:app`` needs nothing but this installed
package. The SuperNode says where the custodian is: ``--node-config 'custodian="/run/c/socket"'``.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context

from wardround.client.custody.calling import RemoteCustodian
from wardround.client.custody.place import UnixSocket
from wardround.client.relay import CustodianService, make_relay
from wardround.privacy.errors import BadInput


def connect(context: Context) -> CustodianService:
    """The custodian behind the socket that the node's configuration names."""
    path = context.node_config.get("custodian")
    if not isinstance(path, str):
        raise BadInput("node configuration: custodian is missing; set it to the socket's path")
    return RemoteCustodian(UnixSocket(Path(path)))


app = make_relay(connect)
