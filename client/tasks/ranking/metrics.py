"""How good a ranking is: nDCG, reciprocal rank, average precision and recall, by ir-measures.

The figures are trec_eval's: passages of equal score are ordered by id from the last to the first,
an unjudged passage counts as not relevant, gain is linear in the grade, and a query that was judged
but not ranked counts 0. ``RR@k`` alone is MS MARCO's, which orders equal scores by id from the
first to the last. Knows nothing of models. Source: MacAvaney et al. (2022), "Streamlining
evaluation with ir-measures".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from wardround.privacy.errors import BadInput

Qrels = Mapping[str, Mapping[str, int]]
Run = Mapping[str, Mapping[str, float]]

MEASURES = ("nDCG@10", "RR@10", "AP", "R@20")


def check_measures(names: Sequence[str]) -> None:
    """Raise ``BadInput`` for the first name that ir-measures does not know."""
    import ir_measures

    if not names:
        raise BadInput("[task] measures is empty; name at least one, such as nDCG@10")
    for name in names:
        try:
            ir_measures.parse_measure(name)
        except (NameError, ValueError, SyntaxError) as error:
            raise BadInput(f"[task] measures: {name!r} is not one ir-measures knows") from error


def measure(qrels: Qrels, run: Run, names: Sequence[str] = MEASURES) -> dict[str, float]:
    """Each measure's mean over the judged queries.

    Args:
        qrels: Grades by query and passage.
        run: Scores by query and passage.
        names: Measures as ir-measures spells them: ``nDCG@10``, ``RR(rel=2)@10``, ``AP``.

    >>> qrels = {"q": {"a": 0, "b": 1}}
    >>> measure(qrels, {"q": {"a": 2.0, "b": 1.0}}, ["RR@10"])
    {'RR@10': 0.5}
    """
    import ir_measures

    wanted = {name: ir_measures.parse_measure(name) for name in names}
    grades = {query: dict(judged) for query, judged in qrels.items() if judged}
    scores = {query: dict(ranked) for query, ranked in run.items() if query in grades}
    found = ir_measures.calc_aggregate(list(wanted.values()), grades, scores)
    return {name: float(found[parsed]) for name, parsed in wanted.items()}


def ranking(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Passages and scores, best first, in the order in which trec_eval would read them."""
    return sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)
