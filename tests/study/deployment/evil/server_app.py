"""The coordinator's half: asks for what no honest plan asks, with its true signature.

It knows all of Wardround and its own signing key. Given a run folder it runs that study and slips
other plans in before each honest one; without, it asks stock nodes for loot.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from wardround.client.workbench import Workbench
from wardround.privacy.envelope import SIGNATURE_BYTES, open_bytes, seal_bytes
from wardround.privacy.plan import Mode, RoundPlan, plan_from_json
from wardround.privacy.signing import SigningKey, canonical, sha256
from wardround.strategies.codec import decode, encode
from wardround.strategies.wire import read_reply, read_request, request_content
from wardround.study.run_folder import RunFolder
from wardround.study.runner import Stage, execute

POLL_S = 0.25
TRAIN = "train"
LARGE = 2**31  # bytes

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Take what can be taken; it goes to the file ``loot``."""
    loot = Path(str(context.run_config["loot"]))
    while len(list(grid.get_node_ids())) < int(str(context.run_config["nodes"])):
        time.sleep(POLL_S)
    told = str(context.run_config["run-folder"])
    found = _against_wardround(grid, RunFolder.open(Path(told))) if told else _against_stock(grid)
    loot.write_text(json.dumps(found), encoding="utf-8")


def _against_stock(grid: Grid) -> list[str]:
    """What every node's app sends."""
    asked = [
        Message(RecordDict({"c": ConfigRecord({"x": 1})}), node, TRAIN) for node in _nodes(grid)
    ]
    replies = grid.send_and_receive(asked)
    return [str(r.content["loot"]["text"]) for r in replies if not r.has_error()]


def _against_wardround(grid: Grid, folder: RunFolder) -> dict[str, Any]:
    """By attack, what came back; and what nodes say that answer nothing."""
    key = SigningKey.load_or_create(folder.path / "coordinator" / "signing.pem")
    evil = EvilGrid(grid, key)
    for node in _nodes(grid):
        (reply,) = grid.send_and_receive([Message(RecordDict(), node, "query.declare")])
        if reply.has_error():
            evil.errors.append(reply.error.reason)

    def engine(rounds: Callable[[Grid], None], *_: object) -> None:
        rounds(evil)

    with Workbench() as workbench:
        execute(folder, Stage(workbench=workbench, engine=engine))
    return {"attacks": evil.attacks, "replayed": evil.replayed, "errors": evil.errors}


def _nodes(grid: Grid) -> list[int]:
    return list(grid.get_node_ids())


def _claims_two_gigabytes(block: bytes) -> bytes:
    """A block of a few hundred bytes whose header claims an array of 2 GB."""
    entry = {"dtype": "F32", "shape": [LARGE // 4], "data_offsets": [0, LARGE]}
    inner = canonical({"encoding": "fp32", "header": {}}).decode()
    header = canonical({"__metadata__": {"wardround-2": inner}, "a": entry})
    return struct.pack("<Q", len(header)) + header


def _filled(block: bytes, change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    header, arrays = decode(block, "arrays")
    return encode(header, {name: change(array) for name, array in arrays.items()})


def _wicked(plan: RoundPlan, block: bytes) -> Iterator[tuple[str, RoundPlan, bytes]]:
    """Plans that the policy forbids, and arrays that no engine should touch."""
    bare = replace(plan.privacy, mode=Mode.NONE, noise_multiplier=0.0)
    yield "no noise", replace(plan, privacy=bare), block
    yield "a thousand rounds", replace(plan, rounds=1000), block
    yield "an unknown task", replace(plan, task="exfiltrate"), block
    blocks = {
        "NaN": _filled(block, lambda array: torch.full_like(array, float("nan"))),
        "wrong shapes": _filled(block, lambda array: torch.zeros(3, 3)),
        "an array of 2 GB": _claims_two_gigabytes(block),
    }
    for name, other in blocks.items():
        yield name, replace(plan, arrays_sha256=sha256(other)), other


@dataclass
class EvilGrid(Grid):
    """A grid that asks for more before it passes an honest plan on, and again after it.

    Attributes:
        grid: Carries the messages.
        key: The coordinator's own.
        attacks: By name, what the hospital answered: kind, reason and number of arrays.
        replayed: Whether each replayed plan brought the same bytes again.
        errors: What nodes said that gave no answer.
    """

    grid: Grid
    key: SigningKey
    attacks: dict[str, list[Any]] = field(default_factory=dict)
    replayed: list[bool] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    honest: dict[str, Message] = field(default_factory=dict)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self.grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self.grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """A message of the current API."""
        return self.grid.create_message(*args, **kwargs)

    def get_node_ids(self) -> Iterable[int]:
        """Every node that is online."""
        return self.grid.get_node_ids()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that are there; an honest plan is sent once more when it was answered."""
        for identifier in message_ids:
            for reply in self.grid.pull_messages([identifier]):
                if (asked := self.honest.pop(identifier, None)) is not None:
                    self._replay(asked, reply)
                yield reply

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the grid does."""
        return self.grid.send_and_receive(messages, timeout=timeout)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send every wicked plan and wait for its answer, then the honest ones."""
        sent = list(messages)
        for message in sent:
            if message.metadata.message_type == TRAIN:
                plan, block = self._open(message)
                for name, other, arrays in _wicked(plan, block):
                    self._attack(name, message, other, arrays)
        ids = list(self.grid.push_messages(sent))
        trains = [i for i, m in zip(ids, sent, strict=True) if m.metadata.message_type == TRAIN]
        self.honest |= dict(zip(trains, sent, strict=True)) if trains else {}
        return ids

    def _replay(self, asked: Message, reply: Message) -> None:
        """The same plan again, and another one for the round that is charged now."""
        plan, block = self._open(asked)
        again = self._ask(asked, plan, block)
        self.replayed.append(again == read_reply(reply.content))
        other = replace(plan, training={**plan.training, "learning_rate": 0.5})
        self._attack("another plan for the round", asked, other, block)

    def _attack(self, name: str, pattern: Message, plan: RoundPlan, block: bytes) -> None:
        sealed = self._ask(pattern, plan, block)
        header, arrays = decode(sealed[SIGNATURE_BYTES:], "reply")
        self.attacks.setdefault(name, []).append(
            [header.get("kind"), header.get("reason"), len(arrays)]
        )

    def _ask(self, pattern: Message, plan: RoundPlan, block: bytes) -> bytes:
        """What a hospital answers to a plan with our signature."""
        content = request_content(seal_bytes(plan.to_bytes(), self.key, "plan"), block)
        metadata = pattern.metadata
        message = Message(content, metadata.dst_node_id, TRAIN, group_id=metadata.group_id)
        (identifier,) = self.grid.push_messages([message])
        while not (replies := list(self.grid.pull_messages([identifier]))):
            time.sleep(POLL_S)
        return read_reply(replies[0].content)

    def _open(self, message: Message) -> tuple[RoundPlan, bytes]:
        sealed, block = read_request(message.content)
        return plan_from_json(json.loads(open_bytes(sealed, self.key.public, "plan"))), block
