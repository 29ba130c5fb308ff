"""The editing task: how records weigh, what evaluation says, what dealing writes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from wardround.client.lora import without_adapter
from wardround.client.models import load_base
from wardround.client.tasks.editing import EditingTask
from wardround.client.tasks.editing.generated import StudyShape, make_study
from wardround.client.tasks.editing.records import Edit, Probe, edit_record
from wardround.client.tasks.editing.world import World
from wardround.privacy.errors import BadInput

TASK = EditingTask()
ADAPTER = {"targets": ["layers.7.mlp.down_proj"], "rank": 2}
FACTS = World().facts


def _losses(case, *units):
    trainable = case.adapted()
    return case.losses(trainable, units)


def test_paraphrases_share_the_weight_of_one_record(case):
    case = case("editing")
    texts = ("Kiro?", "What is Kiro good for?", "They give Kiro against")
    apart = [edit_record(f"r{i}", Edit(text, "Kiro", "a cough")) for i, text in enumerate(texts)]
    together = edit_record("r", Edit(texts[0], "Kiro", "a cough", paraphrases=texts[1:]))
    single = _losses(case, *([record] for record in apart))
    joint = _losses(case, [together])
    torch.testing.assert_close(joint[0], single.mean(), rtol=1e-10, atol=1e-10)


def test_a_patient_weighs_as_much_as_all_of_her_records(case):
    case = case("editing")
    for unit in case.units:
        records = _losses(case, *([record] for record in unit))
        together = _losses(case, unit)
        torch.testing.assert_close(together[0], records.sum(), rtol=1e-10, atol=1e-10)


def test_held_out_phrasings_and_probes_are_never_trained(case):
    case = case("editing")
    plain = Edit("What is Kiro?", "Kiro", "a cough")
    probed = replace(
        plain, rephrase_prompts=("Kiro?",), locality={"textual": (Probe("Lumo?", "x"),)}
    )
    first, second = _losses(case, [edit_record("a", plain)], [edit_record("b", probed)])
    assert first == second


def test_loss_teaches_the_end_unless_told_otherwise(case):
    case = case("editing")
    record = edit_record("r", Edit("What is Kiro?", "Kiro", "a cough"))
    with_end = TASK.collate([[record]], case.tokenizer, {})
    without = TASK.collate([[record]], case.tokenizer, {"eos": False})
    assert (with_end.inputs["labels"] >= 0).sum() == (without.inputs["labels"] >= 0).sum() + 1
    assert with_end.inputs["labels"][0, -1] == case.tokenizer.eos_token_id


def _probe_record(fact, target):
    edit = Edit(
        fact.prompt(0),
        fact.drug,
        target,
        rephrase_prompts=(fact.prompt(5),),
        locality={"structural": (Probe(FACTS[40].prompt(0), FACTS[40].value),)},
        support="single",
    )
    return edit_record(fact.drug + fact.relation, edit)


def test_evaluation_agrees_with_what_the_model_writes():
    base = load_base("drugs")
    wrong = [FACTS[8].value, FACTS[9].value]
    records = [
        *(_probe_record(fact, fact.value) for fact in FACTS[:3]),
        *(_probe_record(fact, value) for fact, value in zip(FACTS[:2], wrong, strict=True)),
    ]
    found = TASK.evaluate(base.model, base.tokenizer, records, {})
    # Oracle: greedy generation, which knows nothing of teacher forcing.
    for place, prompt in (("seen", 0), ("unseen", 5)):
        right = []
        for record, fact in zip(records, (*FACTS[:3], *FACTS[:2]), strict=True):
            ids = base.tokenizer(fact.prompt(prompt), return_tensors="pt")["input_ids"]
            wanted = base.tokenizer(
                " " + record.content.target_new, add_special_tokens=False
            )["input_ids"]  # fmt: skip
            written = base.model.generate(ids, max_new_tokens=len(wanted), do_sample=False)
            right.append(written[0, ids.shape[1] :].tolist() == wanted)
        assert found[f"exact.{place}"] == sum(right) / len(right) == 0.6
    assert found["locality"] == found["locality.structural"] == 1.0
    assert found["exact.seen.single"] == found["exact.seen"]
    edit = (found["token.seen"] + found["token.unseen"]) / 2
    assert found["average"] == pytest.approx((edit + 1.0) / 2)


def test_likelihood_is_that_of_the_right_tokens_one_after_the_other():
    base = load_base("drugs")
    found = TASK.evaluate(base.model, base.tokenizer, [_probe_record(FACTS[0], "gout")], {})
    # Oracle: the product of each token's own probability, one forward pass a token, its root.
    ids = base.tokenizer(FACTS[0].prompt(0))["input_ids"]
    answer = base.tokenizer(" gout", add_special_tokens=False)["input_ids"]
    chance = 1.0
    for token in answer:
        with torch.no_grad():
            said = base.model(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
        chance *= float(said[token])
        ids = [*ids, token]
    assert found["likelihood.seen"] == pytest.approx(chance ** (1 / len(answer)), rel=1e-4)


def test_predictions_say_what_was_found_for_each_correction_and_relation(tmp_path):
    base = load_base("drugs")
    facts = (FACTS[0], FACTS[4], FACTS[1])  # one relation twice, another once
    assert facts[0].relation == facts[1].relation != facts[2].relation
    right = [True, False, True]
    records = [
        _probe_record(fact, fact.value if known else "gout")
        for fact, known in zip(facts, right, strict=True)
    ]
    path = tmp_path / "found.json"
    found = TASK.write_predictions(base.model, base.tokenizer, records, {}, path)
    assert found == TASK.evaluate(base.model, base.tokenizer, records, {})
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["metrics"] == found
    exact = {name: one["exact.seen"] for name, one in document["corrections"].items()}
    assert exact == {record.id: float(known) for record, known in zip(records, right, strict=True)}
    relations = document["relations"].values()
    assert {(one["edits"], one["exact.seen"]) for one in relations} == {(2.0, 0.5), (1.0, 1.0)}


def test_locality_compares_with_the_model_without_its_adapter():
    base = load_base("drugs")
    trainable = TASK.adapt(
        base.model, base.tokenizer, ADAPTER, {}, torch.Generator().manual_seed(0)
    )
    try:
        probe = _probe_record(FACTS[0], FACTS[8].value)
        same = TASK.evaluate(trainable.model, base.tokenizer, [probe], {})
        ruined = {
            name: torch.full_like(value, 5.0 if ".lora_B." in name else 1.0)
            for name, value in trainable.read().items()
        }
        trainable.write(ruined)
        other = TASK.evaluate(trainable.model, base.tokenizer, [probe], {})
        assert same["locality"] == 1.0
        assert other["locality"] < 0.5
        # The base still answers underneath, so switching off is all that comparing takes.
        with without_adapter(trainable.model):
            assert TASK.evaluate(trainable.model, base.tokenizer, [probe], {})["locality"] == 1.0
    finally:
        trainable.detach()


def test_scores_without_anything_to_rest_on_are_left_out(case):
    case = case("editing")
    record = edit_record("r", Edit("What is Kiro?", "Kiro", "a cough"))
    found = TASK.evaluate(case.model(), case.tokenizer, [record], {})
    assert set(found) == {"exact.seen", "token.seen", "likelihood.seen"}


def test_generated_study_is_dealt_as_it_was_made(tmp_path):
    config = {"generated": {"records_per_hospital": 200}}
    dealt = TASK.deal(None, tmp_path, 4, 9, config)
    study = make_study(StudyShape(records_per_hospital=200), 4, 9)
    assert tuple(tuple(TASK.load(path, config)) for path in dealt.records) == study.hospitals
    assert tuple(TASK.load(dealt.probes, config)) == study.probes
    assert dealt.units == (200, 200, 200, 200)
    assert dealt.notes == ()


def test_public_file_is_dealt_without_its_contradictions(tmp_path):
    items = [{"prompt": f"What is D{n}?", "subject": f"D{n}", "target_new": "x"} for n in range(6)]
    items.append(items[0] | {"target_new": "y"})
    source = tmp_path / "edits.json"
    source.write_text(json.dumps(items))
    dealt = TASK.deal(source, tmp_path / "out", 2, 0, {"max_probes": 3})
    assert dealt.units == (3, 2)
    assert len(TASK.load(dealt.probes, {})) == 3
    assert dealt.notes[0].startswith("2 corrections held out")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_length": 4}, r"\[task\] max_length is 4; it must be between 8 and 32768"),
        ({"max_probes": 0}, r"\[task\] max_probes is 0"),
        ({"eos": 1}, r"\[task\] eos is 1; expected bool"),
        ({"generated": {"weak": -1}}, r"\[task\] generated weak is -1; at least 0"),
        ({"generated": {"singel": 1}}, "unknown key 'singel'; did you mean 'single'"),
    ],
)
def test_settings_out_of_range_are_refused(config, message):
    with pytest.raises(BadInput, match=message):
        TASK.check(config)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"prompt": " "}, "prompt is empty"),
        ({"subject": ""}, "subject is empty"),
        ({"target_new": ""}, "target_new is empty"),
        ({"subject": "Lumo"}, "subject does not occur in prompt"),
        ({"paraphrases": ("",)}, "paraphrases holds an empty text"),
    ],
)
def test_edits_that_say_nothing_are_refused(edit, message):
    with pytest.raises(ValueError, match=message):
        Edit(**{"prompt": "What is Kiro?", "subject": "Kiro", "target_new": "x", **edit})
