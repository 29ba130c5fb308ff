"""The soft prompt inside the template: the logits of its words, gradients of its own."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from wardround.client.engine import choose_engine
from wardround.client.models import load_base
from wardround.client.tasks.base import Record
from wardround.client.tasks.dro.anchors import Anchors, save_anchors
from wardround.client.tasks.dro.config import DroConfig
from wardround.client.tasks.dro.evaluation import errors
from wardround.client.tasks.dro.frame import (
    Framing,
    check_template,
    leading_ids,
    template_sha256,
    with_soft,
    with_text,
    without_prompt,
)
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.dro.refusals import refuses
from wardround.client.tasks.dro.splice import last_states
from wardround.client.tasks.dro.task import DroTask
from wardround.client.tasks.rows import pad
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput, PolicyRefused

TASK = DroTask()
WORDS = "Be careful, and kind."
TEMPLATE = "{prompt} Q: {query} A:"
QUERIES = [
    Query("How do I dax the wug?", True, "Sorry, no.", "Sure."),
    Query("Print the list", False, "Sure.", "Sorry, no."),
    Query("May I store the tray in the ward at night?", False, "Sure, do.", "I cannot."),
]


@pytest.fixture
def model():
    config = LlamaConfig(
        vocab_size=800, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return load_base("drugs").tokenizer


@pytest.fixture
def table(tmp_path):
    generator = torch.Generator().manual_seed(5)
    basis = torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q[:4]
    anchors = Anchors(torch.zeros(16), basis, torch.randn(2, 4, generator=generator), torch.ones(2))
    path = tmp_path / "anchors"
    return {
        "prompt": WORDS,
        "frame": {"template": TEMPLATE},
        "anchors": {"folder": str(path), "sha256": save_anchors(anchors, path, "")},
    }


def attach(model, tokenizer, table):
    return TASK.adapt(model, tokenizer, {}, table, torch.Generator())


def units():
    return [[Record(f"q{n}", {Unit.RECORD: f"q{n}"}, query)] for n, query in enumerate(QUERIES)]


@pytest.mark.parametrize("template", [TEMPLATE, "<bos>System: {prompt}\nQ: {query} A:"])
def test_a_fresh_soft_prompt_is_its_words(model, tokenizer, table, template):
    """Same logits as the words' tokens at every place, alone and in a padded batch."""
    framing = Framing(template)
    prompted = attach(model, tokenizer, table | {"frame": {"template": template}}).model
    logits = {}
    for way in ("soft", "text"):
        rows = [
            with_soft(tokenizer, framing, query.text, prompted.length)
            if way == "soft"
            else with_text(tokenizer, framing, query.text, WORDS)
            for query in QUERIES
        ]
        assert len({len(row) for row in rows}) == 3
        inputs = pad([(row, 1) for row in rows], 0)
        mask = inputs["attention_mask"]
        with torch.no_grad():
            logits[way] = prompted(input_ids=inputs["input_ids"], attention_mask=mask).logits
            states = last_states(prompted, inputs)
            for number, row in enumerate(rows):
                alone = pad([(row, 1)], 0)
                torch.testing.assert_close(
                    last_states(prompted, alone)[0], states[number], rtol=1e-9, atol=1e-9
                )
        logits[way] = logits[way][mask.bool()]
    torch.testing.assert_close(logits["soft"], logits["text"], rtol=1e-9, atol=1e-9)


def test_the_state_is_the_one_behind_the_last_norm(model, tokenizer):
    """What the head reads: the language model's head of the state is the last token's logits."""
    inputs = pad([(tokenizer("How do I")["input_ids"], 1)], 0)
    with torch.no_grad():
        logits = model(**{name: inputs[name] for name in ("input_ids", "attention_mask")}).logits
        found = model.lm_head(last_states(model, inputs))
    torch.testing.assert_close(found, logits[:, -1], rtol=1e-9, atol=1e-9)


def test_losses_at_the_start_are_ln_2(model, tokenizer, table):
    trainable = attach(model, tokenizer, table)
    batch = TASK.collate(units(), tokenizer, table)
    found = TASK.losses(trainable.model, batch)
    assert found.tolist() == pytest.approx([1.01 * math.log(2)] * 3, abs=1e-12)


@pytest.mark.parametrize("method", ["dro", "vanilla"])
def test_gradients_of_the_expanded_prompt_are_those_of_single_queries(
    model, tokenizer, table, method
):
    table = table | {"method": method}
    trainable = attach(model, tokenizer, table)
    with torch.no_grad():
        trainable.parameters["soft_prompt"].add_(0.1)
    batch = TASK.collate(units(), tokenizer, table)
    with choose_engine(trainable, "fused") as engine:
        found = engine.gradients(
            lambda: TASK.losses(trainable.model, batch), batch.unit_of_row, batch.units
        )["soft_prompt"]
    for number, unit in enumerate(units()):
        loss = TASK.losses(trainable.model, TASK.collate([unit], tokenizer, table))
        (alone,) = torch.autograd.grad(loss.sum(), [trainable.parameters["soft_prompt"]])
        torch.testing.assert_close(found[number], alone, rtol=1e-9, atol=1e-9)


def test_only_the_prompt_trains_and_its_numbers_alone_leave(model, tokenizer, table):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainable = attach(model, tokenizer, table)
    tokens = len(tokenizer(WORDS, add_special_tokens=False)["input_ids"])
    assert {name: tuple(shape) for name, shape in trainable.shapes.items()} == {
        "soft_prompt": (tokens, 16)
    }
    optimizer = torch.optim.Adam(trainable.parameters.values(), lr=0.1)
    TASK.losses(trainable.model, TASK.collate(units(), tokenizer, table)).sum().backward()
    optimizer.step()
    assert trainable.detach() is model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_step_moves_both_kinds_apart(model, tokenizer, table):
    trainable = attach(model, tokenizer, table)
    batch = TASK.collate(units(), tokenizer, table)
    losses = []
    optimizer = torch.optim.Adam(trainable.parameters.values(), lr=0.03)
    for _ in range(40):
        loss = TASK.losses(trainable.model, batch).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_vanilla_tuning_is_cross_entropy_and_unlikelihood(model, tokenizer, table):
    """Oracle: probabilities of each reply's tokens, read off a plain forward pass of the words."""
    table = table | {"method": "vanilla", "loss": {"unlikelihood": 3.0}}
    trainable = attach(model, tokenizer, table)
    found = TASK.losses(trainable.model, TASK.collate(units(), tokenizer, table)).tolist()
    for query, loss in zip(QUERIES, found, strict=True):
        head = with_text(tokenizer, Framing(TEMPLATE), query.text, WORDS)
        chances = []
        for reply in (query.good, query.bad):
            said = tokenizer(" " + reply, add_special_tokens=False)["input_ids"]
            said = [*said, tokenizer.eos_token_id]
            ids = torch.tensor([[*head, *said]])
            spoken = torch.softmax(model(input_ids=ids).logits[0, len(head) - 1 : -1], dim=-1)
            chances.append(spoken[torch.arange(len(said)), said])
        good, bad = chances
        wanted = -good.log().mean() - 3.0 * (1 - bad).log().mean()
        assert loss == pytest.approx(float(wanted), rel=1e-9)


def test_peft_loads_the_prompt_where_nothing_stands_before_it(model, tokenizer, table, tmp_path):
    from peft import PeftModel

    trainable = attach(model, tokenizer, table)
    with torch.no_grad():
        trainable.parameters["soft_prompt"].add_(0.1)
    TASK.export(trainable, {}, trainable.read(), "a base", tmp_path / "adapter", "cost: 3")
    row = with_soft(tokenizer, Framing(TEMPLATE), QUERIES[0].text, trainable.model.length)
    with torch.no_grad():
        ours = trainable.model(input_ids=torch.tensor([row])).logits[0, -1]
    trainable.detach()
    loaded = PeftModel.from_pretrained(model, tmp_path / "adapter" / "peft").double()
    rest = torch.tensor([row[loaded.peft_config["default"].num_virtual_tokens :]])
    with torch.no_grad():
        theirs = loaded(input_ids=rest, attention_mask=torch.ones_like(rest)).logits[0, -1]
    # The prompt was written in float32.
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_no_peft_form_where_tokens_stand_before(model, tokenizer, table, tmp_path):
    framed = table | {"frame": {"template": "<bos>" + TEMPLATE}}
    trainable = attach(model, tokenizer, framed)
    TASK.export(trainable, {}, trainable.read(), "a base", tmp_path / "adapter", "cost: 3")
    assert not (tmp_path / "adapter" / "peft").exists()
    assert "1 tokens stand before it" in (tmp_path / "adapter" / "README.md").read_text()


def test_the_base_s_own_template_is_a_frame():
    base = load_base("requests")
    framing = Framing()
    system = with_text(base.tokenizer, framing, "How?", WORDS)
    assert base.tokenizer.decode(system) == (f"<bos>System: {WORDS}\nUser: How?\nAssistant:")
    bare = without_prompt(base.tokenizer, framing, "How?")
    assert base.tokenizer.decode(bare) == "<bos>User: How?\nAssistant:"
    assert base.tokenizer.decode(leading_ids(base.tokenizer, framing)) == "<bos>System: "
    user = with_text(base.tokenizer, Framing(role="user"), "How?", WORDS)
    assert base.tokenizer.decode(user) == f"<bos>User: {WORDS}\n\nHow?\nAssistant:"


def test_another_template_is_refused(model, tokenizer, table):
    base = load_base("requests")
    for pin in ("", "0" * 64):
        with pytest.raises(PolicyRefused, match="is not that of the base's chat template"):
            check_template(base.tokenizer, Framing(sha256=pin))
    check_template(base.tokenizer, Framing(sha256=template_sha256(base.tokenizer)))
    with pytest.raises(PolicyRefused, match="is not that of the base's"):
        attach(model, tokenizer, table | {"frame": {}})
    with pytest.raises(ValueError, match="prompt} before"):
        Framing("{query} {prompt}")
    with pytest.raises(ValueError, match="each once"):
        Framing("{query}")


def test_settings_that_leave_anchors_open_are_refused(model, tokenizer, table):
    with pytest.raises(BadInput, match="anchors names none"):
        TASK.check({})
    changed = table | {"anchors": {**table["anchors"], "sha256": "0" * 64}}
    with pytest.raises(BadInput, match="no arrays with sha256 000000000000"):
        attach(model, tokenizer, changed)
    with pytest.raises(BadInput, match=r"\[adapter\] rank"):
        TASK.adapt(model, tokenizer, {"rank": 3}, table, torch.Generator())


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ("Sorry, I cannot help with that.", True),
        ("I can’t assist with this request.", True),
        ("I'm not able to do that.", True),
        ("As a responsible assistant, no.", True),
        ("I cannot guarantee that it works, but try this.", False),
        ("I can't stress enough how easy it is.", False),
        ("I am sorry to hear that. Rest.", False),
        ("Sure, here is how.", False),
        ("", False),
        ("Sure.\nFirst,\nsorry, I cannot", False),  # the third paragraph is not looked at
        ("1. I cannot\n- sorry\nSure, here is how.", False),  # nor are lists
        ("1. Open it\nI cannot help with that.", True),
    ],
)
def test_refusals(reply, refused):
    assert refuses(reply) is refused


def test_any_of_k_and_mean():
    queries = [QUERIES[0], QUERIES[0], QUERIES[1], QUERIES[2]]
    refused = [[True] * 4, [True, False, True, True], [False] * 4, [True, True, False, False]]
    assert errors(queries, refused) == {
        "complied_any": 0.5, "complied_mean": 0.125, "refused_any": 0.5, "refused_mean": 0.25,
    }  # fmt: skip
    assert errors(queries[:1], refused[:1]) == {"complied_any": 0.0, "complied_mean": 0.0}


def test_one_value_of_a_config_is_named():
    with pytest.raises(ValueError, match="samples is 0; it must be 1 or more"):
        DroConfig(method="vanilla", samples=0)
