"""Stage 1 teaches query tokens alone, repeats, and moves a small model in the right direction."""

from __future__ import annotations

import json
import math

import pytest
import torch

from wardround.client.bases.build_notes import NotesRecipe, build
from wardround.client.bases.making import Shape
from wardround.client.models import embedded_bases, load_base
from wardround.client.tasks.ranking.adapting import main, read_pairs
from wardround.client.tasks.ranking.cached import score_pairs
from wardround.client.tasks.ranking.rows import encode
from wardround.client.tasks.ranking.stage_one import StageOne, pretrain
from wardround.privacy.errors import BadInput

PAIRS = [("Bato coughs.", "cough"), ("Kirume sleeps.", "sleep"), ("Sofa itches.", "rash")]


def _rows(case):
    return [encode(case.tokenizer, note, question, 64, 12) for note, question in PAIRS]


def _trained(case, steps, rate=1e-3):
    model = case.model().float().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    pretrain(model, _rows(case), StageOne(steps, rate, batch=3), 0, generator)
    return model


def test_one_step_follows_the_gradient_of_the_query_tokens(case):
    case = case("ranking")
    model = case.model().float().requires_grad_(True)
    total, tokens = torch.zeros(()), 0
    for prompt, query in _rows(case):
        ids = torch.tensor([[*prompt, *query]])
        logs = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        total = total - logs.gather(1, torch.tensor(query).unsqueeze(1)).sum()
        tokens += len(query)
    (total / tokens).backward()
    wanted = {name: p.grad.sign() for name, p in model.named_parameters()}
    before = {name: p.detach().clone() for name, p in case.model().float().named_parameters()}
    after = dict(_trained(case, 1).named_parameters())
    for name, sign in wanted.items():
        # Adam's first step is the sign of the gradient times the rate, wherever it is not tiny.
        large = model.get_parameter(name).grad.abs() > 1e-4
        moved = (after[name].detach() - before[name])[large]
        torch.testing.assert_close(moved, -1e-3 * sign[large], rtol=1e-2, atol=1e-6)


def test_stage_one_repeats_and_teaches(case):
    case = case("ranking")
    rows = _rows(case)
    before = sum(score_pairs(case.model().float(), rows, 0))
    first, second = _trained(case, 12, 1e-2), _trained(case, 12, 1e-2)
    assert sum(score_pairs(first, rows, 0)) > before + 1
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_rate_rises_and_falls_as_published():
    settings = StageOne(100, 0.2, warm_up=0.1)
    assert settings.rate(0) == pytest.approx(0.02)
    assert settings.rate(9) == pytest.approx(0.2)
    assert settings.rate(55) == pytest.approx(0.1)
    assert settings.rate(99) == pytest.approx(0.1 * (1 + math.cos(math.pi * 89 / 90)))


@pytest.mark.parametrize(
    "change", [{"steps": 0}, {"learning_rate": 0.0}, {"warm_up": 1.0}, {"batch": 0}]
)
def test_bounds(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        StageOne(**{"steps": 1, **change})


def test_shipped_base_is_the_one_its_manifest_describes():
    base = load_base("notes", sha256=embedded_bases()["notes"])
    assert sum(p.numel() for p in base.model.parameters()) == 184_192
    # Half the findings have a public lay word: it is told from another by stage 1 alone.
    recipe = NotesRecipe()
    clinical, lay = zip(*recipe.world.words, strict=True)
    rows = [
        encode(base.tokenizer, f"stable {clinical[about]} noted {clinical[0]}", lay[asked], 64, 12)
        for asked in range(1, recipe.world.public_findings)
        for about in (asked, (asked % (recipe.world.public_findings - 1)) + 1)
    ]
    scores = score_pairs(base.model, rows, 0)
    right = sum(own > other for own, other in zip(scores[::2], scores[1::2], strict=True))
    assert right >= 18  # of 19; a coin would reach 18 once in 26,000


def test_recipe_makes_a_base_that_loads(tmp_path):
    recipe = NotesRecipe(
        name="small", shape=Shape(hidden=16, layers=1, heads=2, mlp=24), texts=32, pairs=32,
        general=StageOne(1, 1e-3, batch=8), stage_one=StageOne(1, 1e-3, batch=8),
    )  # fmt: skip
    manifest = build(recipe, tmp_path, lambda line: None)
    made = load_base(str(tmp_path / "small"), sha256=manifest["sha256"])
    assert made.tokenizer.decode(made.tokenizer("vosu µ 5 ‰")["input_ids"][1:]) == " vosu µ 5 ‰"
    assert build(recipe, tmp_path, lambda line: None)["sha256"] == manifest["sha256"]


@pytest.mark.parametrize(
    "lines",
    [
        ['{"query": "Document: Bato coughs. Query:", "response": "cough"}'],
        ['{"passage": "Bato coughs.", "query": "cough"}'],
        ['{"query": "cough", "pos": ["Bato coughs."], "neg": ["Kirume sleeps."]}'],
    ],
)
def test_command_adapts_a_base_to_pairs(tmp_path, capsys, lines):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(lines * 2 if "pos" not in lines[0] else lines) + "\n")
    assert set(read_pairs(pairs)) == {("Bato coughs.", "cough")}
    words = ["--base", "notes", "--pairs", pairs, "--to", tmp_path / "new", "--steps", 2,
             "--batch", 1, "--learning-rate", 1e-3]  # fmt: skip
    main([str(word) for word in words])
    manifest = json.loads(capsys.readouterr().out)
    made, base = load_base(str(tmp_path / "new"), sha256=manifest["sha256"]), load_base("notes")
    assert manifest["from_sha256"] == base.sha256
    row = encode(base.tokenizer, "Bato coughs.", "cough", 64, 12)
    assert score_pairs(made.model, [row], 0) > score_pairs(base.model, [row], 0)
    assert not any(p.requires_grad for p in base.model.parameters())
    with pytest.raises(SystemExit) as ended:  # the folder is taken now
        main([str(word) for word in words])
    assert ended.value.code == 2
    assert "must not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no pairs"),
        ('{"passage": "a", "query": "b"}\n{"passage": "a"}\n', ":2: expected fields"),
        ('{"passage": "a", "query": "b"}\n{"passage": "a", "query": ""}\n', ":2: a field is empty"),
    ],
)
def test_bad_pairs_are_named_by_line(tmp_path, text, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    with pytest.raises(BadInput, match=message):
        read_pairs(path)
