"""A page about one central edit: scores before and after, by relation; one file, no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}"
    "td,th{border-bottom:1px solid #ccc;padding:.2em .8em;text-align:left}"
)
_COLUMNS = ("edits", "exact.seen", "exact.unseen", "token.seen", "token.unseen", "locality")


def editing_page(document: Mapping[str, Any]) -> str:
    """The page for what ``edit.json`` says; every text from a file is escaped."""
    before, after = document["before"], document["after"]
    scores = [[name, _figure(before.get(name)), _figure(value)] for name, value in after.items()]
    relations = [
        [relation, *(_figure(found.get(name)) for name in _COLUMNS)]
        for relation, found in document["relations"].items()
    ]
    facts = [
        f"{document['corrections']} public corrections by {document['settings']['method']}, "
        f"{document['regime']}, on {document['base']} ({document['base_sha256'][:12]}).",
        "Applied centrally, exactly and without noise: nothing here is private.",
        *document["held_back"],
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>Edit</title>"
        f"<style>{_STYLE}</style><h1>What an edit changed</h1>"
        f"<ul>{''.join(f'<li>{escape(fact)}</li>' for fact in facts)}</ul>"
        f"<h2>Scores</h2>{_table(('score', 'before', 'after'), scores)}"
        f"<h2>After, by relation</h2>{_table(('relation', *_COLUMNS), relations)}"
        f"<p>Locality is agreement with the base before the edit, not correctness.</p></html>\n"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table."""
    top = "".join(f"<th>{escape(text)}</th>" for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def _figure(value: float | None) -> str:
    """A score, or a dash where there is none."""
    return "–" if value is None else f"{value:.3f}".removesuffix(".000") or "0"
