"""The default engine: a Flower Grid that runs real ServerApp and ClientApp objects in one process.

Every message is serialised and parsed again in both directions, so what would not survive the wire
does not survive here. No sockets, no Ray. Four names of Flower's internals are used
(``TaskIdentity``, ``get_all_nested_objects``, ``no_object_id_recompute``,
``inflate_object_from_contents``); flwr is pinned exactly, and ``tests/study/test_in_process.py``
fails when they change.
"""

from __future__ import annotations

import itertools
import logging
import resource
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from wardround.client.custodian import Custodian, Surroundings
from wardround.client.relay import make_relay
from wardround.server.app import make_server_app
from wardround.study.garbage import spare_what_is_there
from wardround.study.run_folder import RunFolder

log = logging.getLogger("wardround.grid")

_COORDINATOR_NODE = 1
_FIRST_HOSPITAL_NODE = 100
_CLIENT_APP_RAISED = 2
_FILES_OF_A_CUSTODIAN = 4  # two for the ledger, two while it writes a reply
_OTHER_FILES = 200


class InProcessGrid(Grid):
    """Delivers each message to its ClientApp when the replies are pulled."""

    def __init__(self, client_app: ClientApp, nodes: Mapping[int, str]) -> None:
        """``nodes`` maps node id to the hospital's name, which the app finds in ``node_config``."""
        TaskIdentity.task_id, TaskIdentity.run_id = 1, 1
        TaskIdentity.node_id = _COORDINATOR_NODE
        self._run = Run.create_empty(1)
        self._client_app = client_app
        self._contexts = {
            node: Context(
                run_id=1,
                node_id=node,
                node_config={"hospital": name},
                state=RecordDict(),
                run_config={},
            )
            for node, name in nodes.items()
        }
        self._queue: dict[str, Message] = {}
        self._ids = itertools.count(1)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message of the current API."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every hospital's node."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages; returns their ids in the same order."""
        ids = []
        for message in messages:
            identifier = f"message-{next(self._ids)}"
            message.metadata.__dict__["_message_id"] = identifier
            self._queue[identifier] = message
            ids.append(identifier)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Deliver one queued message and return its reply, so that answers arrive one by one."""
        for identifier in message_ids:
            if identifier in self._queue:
                return [self._deliver(self._queue.pop(identifier))]
        return []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push, then pull until every message is answered."""
        ids = list(self.push_messages(messages))
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def _deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        request = _through_the_wire(message)
        try:
            reply = self._client_app(request, self._contexts[node])
        except Exception as error:
            # What Flower does with an app that raises: the other side sees an error, not the cause.
            log.exception("the relay failed node=%(node)d", {"node": node})
            reply = Message(Error(_CLIENT_APP_RAISED, type(error).__name__), reply_to=request)
        reply.metadata.__dict__["_src_node_id"] = node
        reply.metadata.__dict__["_message_id"] = f"reply-{next(self._ids)}"
        return _through_the_wire(reply)


def _through_the_wire(message: Message) -> Message:
    """The message as it arrives: serialised, then built again from bytes."""
    identifier = message.metadata.message_id
    with no_object_id_recompute():  # nothing changes a message while it is on its way
        parts = {key: part.deflate() for key, part in get_all_nested_objects(message).items()}
        arrived = inflate_object_from_contents(message.object_id, parts)
    if not isinstance(arrived, Message):
        raise TypeError(f"a message came back as {type(arrived).__name__}")
    arrived.metadata.__dict__["_message_id"] = identifier
    return arrived


def run_in_process(
    main: Callable[[Grid], None], folder: RunFolder, surroundings: Surroundings
) -> None:
    """Run ``main`` as a ServerApp against one relay per hospital; errors come through."""
    spare_what_is_there()
    names = dict(enumerate(folder.facts.hospitals, _FIRST_HOSPITAL_NODE))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    with _files_for(len(names)) as most, OpenCustodians(folder, surroundings, most) as custodians:
        relay = make_relay(lambda at: custodians.of(str(at.node_config["hospital"])))
        make_server_app(main)(InProcessGrid(relay, names), context)


class OpenCustodians:
    """Custodians of one run, opened when they are first asked.

    Each holds its ledger's lock for as long as it is open. Where there are more hospitals than may
    be open at once, the one that was asked longest ago gives its ledger up; when it is asked again
    it is opened anew, and checks its whole ledger as after any restart.
    """

    def __init__(self, folder: RunFolder, surroundings: Surroundings, most: int) -> None:
        """``most`` is how many may be open at once, 1 or more."""
        self._folder = folder
        self._surroundings = surroundings
        self._most = most
        self._open: OrderedDict[str, Custodian] = OrderedDict()

    def __enter__(self) -> Self:
        """Opens nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Give all ledgers up."""
        while self._open:
            self._open.popitem()[1].close()

    def of(self, hospital: str) -> Custodian:
        """The hospital's custodian, open."""
        if hospital not in self._open:
            if len(self._open) >= self._most:
                self._open.popitem(last=False)[1].close()
            self._open[hospital] = Custodian(self._folder.hospital(hospital), self._surroundings)
        self._open.move_to_end(hospital)
        return self._open[hospital]


@contextmanager
def _files_for(hospitals: int) -> Iterator[int]:
    """How many custodians may be open at once; inside, as many as the system lets us have.

    A process starts with a low limit on open files that it may raise by itself.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hospitals * _FILES_OF_A_CUSTODIAN + _OTHER_FILES
    limit = soft
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        unlimited = limit == resource.RLIM_INFINITY
        yield hospitals if unlimited else max(1, (limit - _OTHER_FILES) // _FILES_OF_A_CUSTODIAN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
