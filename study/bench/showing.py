"""What the commands of ``wardround bench`` have in common: options, and how they show results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def seeds_of(text: str) -> list[int]:
    """Seeds as the command line gives them; ``BadInput`` names what is no whole number."""
    from wardround.privacy.errors import BadInput

    if not all(seed.strip().isdecimal() for seed in text.split(",")):
        raise BadInput(f"--seeds is {text!r}; expected whole numbers with commas between")
    return [int(seed) for seed in text.split(",")]


def teller(as_json: bool) -> Any:
    """Where a benchmark says what it is doing."""
    return Console(stderr=True, quiet=as_json).print


def show(document: Mapping[str, Any], as_json: bool) -> None:
    """One JSON document, or the same as text a person can read."""
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        Console().print_json(data=document)
