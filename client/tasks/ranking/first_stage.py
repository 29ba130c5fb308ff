"""The first stage, which finds what is worth ranking: BM25 over a collection, or a run file.

BM25 through bm25s, with its defaults (Lucene's variant, k1 = 1.5, b = 0.75, English stop words).
Knows nothing of models. Source: Robertson and Zaragoza (2009), "The probabilistic relevance
framework".

Privacy: an index holds document frequencies of everything in it, so a list found with it depends on
every passage of the collection. Lists for private training come from public collections only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

from wardround.client.tasks.ranking.metrics import ranking
from wardround.privacy.errors import BadInput


class Finder(Protocol):
    """What lists are made with."""

    @property
    def ids(self) -> Sequence[str]:
        """Passages that random negatives are drawn from."""

    def best(self, name: str, query: str, depth: int) -> list[tuple[str, float]]:
        """Passages and scores for the query of this id and text, best first; at most ``depth``."""


class FromRun:
    """A first stage that was run elsewhere.

    Args:
        run: Scores by query and passage.
    """

    def __init__(self, run: Mapping[str, Mapping[str, float]]) -> None:
        self._run = run

    @cached_property
    def ids(self) -> Sequence[str]:
        """Every passage that the run names, in its order."""
        return list(dict.fromkeys(name for scores in self._run.values() for name in scores))

    def best(self, name: str, query: str, depth: int) -> list[tuple[str, float]]:
        """The run's best for this query; none where it has none."""
        return ranking(self._run.get(name, {}))[:depth]


class FirstStage:
    """An index of passages.

    Args:
        passages: Id and text of each; read once, and only the index is kept.
    """

    def __init__(self, passages: Iterable[tuple[str, str]]) -> None:
        import bm25s
        from bm25s.tokenization import Tokenizer

        self._ids: list[str] = []
        words = Tokenizer()
        tokens = list(words.streaming_tokenize(self._texts(passages)))
        if not self._ids:
            raise BadInput("the first stage has no passages to index")
        self._index = bm25s.BM25()
        self._index.index((tokens, words.get_vocab_dict()), show_progress=False)
        self._place = {name: place for place, name in enumerate(self._ids)}

    @property
    def ids(self) -> Sequence[str]:
        """Ids of all passages, in the collection's order."""
        return self._ids

    def retrieve(self, query: str, depth: int) -> list[tuple[str, float]]:
        """The best passages and their scores, best first; at most ``depth``, none that score 0."""
        found, scores = self._index.retrieve(
            [_words(query)], k=min(depth, len(self._ids)), show_progress=False
        )
        return [
            (self._ids[int(place)], float(score))
            for place, score in zip(found[0], scores[0], strict=True)
            if score > 0
        ]

    def best(self, name: str, query: str, depth: int) -> list[tuple[str, float]]:
        """``retrieve``, whatever the query's id."""
        return self.retrieve(query, depth)

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        """What the first stage gives these passages; each must be in the index."""
        everything = self._index.get_scores(_words(query))
        return [float(everything[self._place[name]]) for name in ids]

    def _texts(self, passages: Iterable[tuple[str, str]]) -> Iterator[str]:
        """The texts, noting the ids."""
        for name, text in passages:
            self._ids.append(name)
            yield text


def _words(text: str) -> list[str]:
    """A query's words; a blank one where it has none, so that everything scores 0."""
    import bm25s

    words: list[str] = bm25s.tokenize([text], return_ids=False, show_progress=False)[0]
    return words or [""]
