"""The chat template as a frame: what stands before the safety prompt, and what after it.

A prompt's own tokens are spelt by themselves and put in between, whether they are words or soft, so
that both stand at the same places. Places of a soft prompt are negative: ``-1`` is its first
vector. Source: Zheng et al. (2024), released ``train.py``, where end tokens hold the places.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from wardround.privacy.errors import BadInput, PolicyRefused
from wardround.privacy.signing import sha256

PLACE = "\x00prompt\x00"
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Framing:
    """The ``[task.frame]`` table: where the prompt stands.

    Attributes:
        template: With ``{prompt}`` and ``{query}``; empty for the base's own chat template.
        sha256: Hash of the base's own template, which a hospital's must have, too.
        role: ``system``, or ``user`` for a template without one: the prompt then comes before the
            query, with a blank line between.
    """

    template: str = ""
    sha256: str = ""
    role: str = "system"

    def __post_init__(self) -> None:
        if self.role not in ("system", "user"):
            raise ValueError(f"role is {self.role!r}; it must be system or user")
        parts = [self.template.count(part) for part in ("{prompt}", "{query}")]
        if self.template and parts != [1, 1]:
            raise ValueError("template must hold {prompt} and {query}, each once")
        if self.template and self.template.index("{prompt}") > self.template.index("{query}"):
            raise ValueError("template must have {prompt} before {query}")


def template_sha256(tokenizer: Any) -> str:
    """Hash of a base's own chat template; of nothing where it has none."""
    return sha256(str(getattr(tokenizer, "chat_template", None) or "").encode())


def check_template(tokenizer: Any, framing: Framing) -> None:
    """Refuse a base whose chat template is not the study's.

    Raises:
        PolicyRefused: It has another hash; a study that spells its template has no need of one.
    """
    if not framing.template and template_sha256(tokenizer) != framing.sha256:
        raise PolicyRefused(
            "[task.frame] sha256 is not that of the base's chat template, and template is empty"
        )


def prompt_ids(tokenizer: Any, text: str) -> Ids:
    """A prompt's own tokens."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def leading_ids(tokenizer: Any, framing: Framing) -> Ids:
    """What stands before the prompt, whatever the query is."""
    return frame(tokenizer, framing, "x")[0]


@lru_cache(maxsize=1 << 15)
def frame(tokenizer: Any, framing: Framing, query: str) -> tuple[Ids, Ids]:
    """Token ids before the prompt and after it; the last one is where the reply begins."""
    if framing.template:
        before, _, after = framing.template.partition("{prompt}")
        return _ids(tokenizer, before), _ids(tokenizer, after.replace("{query}", query))
    if framing.role == "system":
        messages = [{"role": "system", "content": PLACE}, {"role": "user", "content": query}]
    else:
        messages = [{"role": "user", "content": f"{PLACE}\n\n{query}"}]
    before, found, after = _render(tokenizer, messages).partition(PLACE)
    if not found:
        raise BadInput(f"the base's chat template has no place for a {framing.role} prompt")
    return _ids(tokenizer, before), _ids(tokenizer, after)


@lru_cache(maxsize=1 << 15)
def without_prompt(tokenizer: Any, framing: Framing, query: str) -> Ids:
    """A query as it is asked without any prompt."""
    if framing.template:
        return _ids(tokenizer, framing.template.replace("{prompt}", "").replace("{query}", query))
    return _ids(tokenizer, _render(tokenizer, [{"role": "user", "content": query}]))


def with_text(tokenizer: Any, framing: Framing, query: str, text: str) -> Ids:
    """A query under a prompt of words."""
    before, after = frame(tokenizer, framing, query)
    return (*before, *prompt_ids(tokenizer, text), *after)


def with_soft(tokenizer: Any, framing: Framing, query: str, length: int) -> Ids:
    """A query under a soft prompt of so many vectors."""
    before, after = frame(tokenizer, framing, query)
    return (*before, *range(-1, -length - 1, -1), *after)


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """The chat template's text, up to where the reply begins."""
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
    except TemplateError as error:
        raise BadInput(f"the base's chat template refuses these messages: {error}") from error
    return text


def _ids(tokenizer: Any, text: str) -> Ids:
    """Tokens of a piece of template; a template spells its special tokens out."""
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()
