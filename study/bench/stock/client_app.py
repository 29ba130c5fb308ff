"""The ClientApp of the stock app: a few steps of SGD on made-up rows, as in Flower's examples."""

from __future__ import annotations

import time

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

ROWS = 64
INPUTS = 64

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """The trained weights, and how long training them took."""
    started = time.perf_counter()
    state = message.content.array_records["arrays"].to_torch_state_dict()
    net = torch.nn.Linear(INPUTS, state["weight"].shape[0], bias=False)
    net.load_state_dict(state)
    generator = torch.Generator().manual_seed(context.node_id % 2**63)
    inputs = torch.randn(ROWS, INPUTS, generator=generator)
    wanted = torch.randn(ROWS, net.out_features, generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(int(str(context.run_config["steps"]))):
        optimizer.zero_grad()
        (net(inputs) - wanted).pow(2).mean().backward()
        optimizer.step()
    metrics = MetricRecord({"num-examples": ROWS, "seconds": time.perf_counter() - started})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics})
    return Message(content, reply_to=message)
