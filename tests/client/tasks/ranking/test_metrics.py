"""Metrics are trec_eval's: closed forms by hand, and ir-measures and pytrec_eval themselves."""

from __future__ import annotations

import math

import ir_measures
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from wardround.client.tasks.ranking.evaluation import evaluate_run
from wardround.client.tasks.ranking.metrics import check_measures, measure, ranking
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.ranking.trec import read_qrels, read_run, write_run
from wardround.privacy.errors import BadInput

QRELS = {
    "301": {"FR940202": 1, "FT921": 0, "LA0102": 2},
    "302": {"FT922": 3, "FT923": 1},
    "303": {"FT924": 1},
}
RUN = {
    # FT921 was judged and is not relevant; UNJ was never judged; two passages tie.
    "301": {"FT921": 9.0, "LA0102": 8.0, "UNJ": 8.0, "FR940202": 2.0},
    "302": {"FT923": 1.0, "FT922": 1.0, "UNJ": 1.0},
    "304": {"FT922": 1.0},  # nobody judged this query; 303 was judged and not ranked
}


def test_values_by_hand():
    found = measure(QRELS, RUN, ["nDCG@10", "RR@10", "RR", "AP", "R@2", "P(rel=2)@1"])
    # Ties go by id from the last: 301 is FT921, UNJ, LA0102, FR940202; 302 is UNJ, FT923, FT922.
    log2 = math.log2
    ndcg_301 = (2 / log2(4) + 1 / log2(5)) / (2 / log2(2) + 1 / log2(3))
    ndcg_302 = (1 / log2(3) + 3 / log2(4)) / (3 / log2(2) + 1 / log2(3))
    assert found["nDCG@10"] == pytest.approx((ndcg_301 + ndcg_302 + 0) / 3, abs=1e-9)
    # MS MARCO's evaluator reads ties from the first id: FT921, LA0102 and FT922.
    assert found["RR@10"] == pytest.approx((1 / 2 + 1 + 0) / 3, abs=1e-9)
    assert found["RR"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3, abs=1e-9)
    ap_301, ap_302 = (1 / 3 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2
    assert found["AP"] == pytest.approx((ap_301 + ap_302 + 0) / 3, abs=1e-9)
    assert found["R@2"] == pytest.approx((0 + 1 / 2 + 0) / 3, abs=1e-9)
    assert found["P(rel=2)@1"] == 0


def test_values_are_those_of_ir_measures_on_the_files(tmp_path):
    write_run(RUN, tmp_path / "run", "t")
    lines = [f"{q} 0 {d} {g}\n" for q, judged in QRELS.items() for d, g in judged.items()]
    (tmp_path / "qrels").write_text("".join(lines))
    names = ["nDCG@10", "RR@10", "AP", "R@2", "nDCG", "RR(rel=2)@10"]
    # Oracle: ir-measures' own readers and measures.
    oracle = ir_measures.calc_aggregate(
        [ir_measures.parse_measure(name) for name in names],
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels"))),
        list(ir_measures.read_trec_run(str(tmp_path / "run"))),
    )
    found = measure(read_qrels(tmp_path / "qrels"), read_run(tmp_path / "run"), names)
    assert found == pytest.approx({str(k): v for k, v in oracle.items()}, abs=1e-12)


ids = st.sampled_from(["a", "b", "c", "d", "e"])


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(ids, st.integers(0, 3), min_size=1),
    st.dictionaries(ids, st.sampled_from([-2.0, -1.0, 0.5]), min_size=1),
)
def test_any_list_is_measured_as_trec_eval_does(judged, ranked):
    evaluator = pytrec_eval.RelevanceEvaluator({"q": judged}, {"ndcg_cut.10", "map"})
    oracle = evaluator.evaluate({"q": ranked})["q"]
    found = measure({"q": judged}, {"q": ranked}, ["nDCG@10", "AP"])
    assert found["nDCG@10"] == pytest.approx(oracle["ndcg_cut_10"], abs=1e-12)
    assert found["AP"] == pytest.approx(oracle["map"], abs=1e-12)
    order = [name for name, _ in ranking(ranked)]
    gains = [judged.get(name, 0) / math.log2(place + 2) for place, name in enumerate(order)]
    best = sorted(judged.values(), reverse=True)
    ideal = sum(grade / math.log2(place + 2) for place, grade in enumerate(best))
    assert found["nDCG@10"] == pytest.approx(sum(gains) / ideal if ideal else 0.0, abs=1e-9)


@pytest.mark.parametrize("names", [["nDCG@ten"], ["nope@10"], []])
def test_unknown_measure_is_refused(names):
    with pytest.raises(BadInput, match="measures"):
        check_measures(names)


def _record(name, *candidates, missed=None):
    return ranking_record(name, RankingQuery("q", candidates, missed or {}))


def test_missed_answers_count_and_unanswerable_queries_do_not():
    records = [
        _record("found", Candidate("a", "x", 1, 0.1), Candidate("b", "y", None, 0.9)),
        _record("missed", Candidate("a", "x", 0, 0.5), missed={"z": 1}),
        _record("unanswerable", Candidate("a", "x", 0, 0.5)),
    ]
    run = {"found": {"a": 2.0, "b": 1.0}, "missed": {"a": 0.0}, "unanswerable": {"a": 0.0}}
    found = evaluate_run(records, run, ["RR@10"])
    assert found == {"RR@10": 0.5, "first_stage.RR@10": 0.25, "queries": 2.0}


def test_first_stage_is_silent_where_a_score_is_missing():
    records = [_record("q", Candidate("a", "x", 1, 0.1), Candidate("b", "y", 0))]
    found = evaluate_run(records, {"q": {"a": 1.0, "b": 0.0}}, ["RR@10"])
    assert found == {"RR@10": 1.0, "queries": 1.0}


def test_nothing_judged_is_said_plainly():
    records = [_record("q", Candidate("a", "x"))]
    assert evaluate_run(records, {"q": {"a": 1.0}}, ["RR@10"]) == {"queries": 0.0}
