"""Prompts as vectors: the text path, the net, and that pictures and names stay apart."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from wardround.client.engine import choose_engine
from wardround.client.models import load_base
from wardround.client.tasks.base import Record
from wardround.client.tasks.cocoop.config import PromptConfig
from wardround.client.tasks.cocoop.dealing import as_png
from wardround.client.tasks.cocoop.encoding import (
    make_template,
    normalised,
    place_vectors,
    text_features,
    word_features,
    word_ids,
)
from wardround.client.tasks.cocoop.formats import in_memory
from wardround.client.tasks.cocoop.images import Normalisation
from wardround.client.tasks.cocoop.learner import attach_prompt
from wardround.client.tasks.cocoop.task import CocoopTask
from wardround.client.tasks.cocoop.world import draw
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput
from wardround.privacy.tables import from_table

IMAGE = Normalisation()
# float64 sums over some hundred terms in another order.
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def learner_of(clip, tokenizer, names=3, **settings):
    generator = torch.Generator().manual_seed(2)
    return attach_prompt(
        clip, tokenizer, from_table(PromptConfig, settings, "[adapter]"), names, generator
    )


def logits_of(learner, pictures, names):
    features = learner.look(pictures, IMAGE)
    return learner.logits(features, learner.seen(pictures, features), names)


@pytest.mark.parametrize("eos", [3, 2])
def test_embedded_words_give_the_features_of_words(make_clip, tokenizer, eos):
    """Oracle: transformers' own get_text_features, of a short row and a padded one.

    With an end token said to be 2, as in OpenAI's own configurations, transformers takes the
    highest id's place instead; the prompts below hold only lower ids then.
    """
    clip = make_clip(eos=eos)
    template = make_template(tokenizer, [["a photo of a red disc."], ["a one."]], 20)
    ids = template.ids.clone()
    if eos == 2:
        ids[template.ids == 3] = 394
        template.ids[template.ids == 3] = 394
    wanted = normalised(clip.get_text_features(input_ids=ids).pooler_output)
    torch.testing.assert_close(word_features(clip, template), wanted, rtol=0, atol=1e-6)


def test_vectors_that_are_words_give_the_features_of_words(clip, tokenizer):
    context = word_ids(tokenizer, "a photo of a")
    assert len(context) == 4
    free = make_template(tokenizer, [[0, 1, 2, 3, " red disc."], [0, 1, 2, 3, " one."]], 20)
    words = make_template(tokenizer, [["a photo of a red disc."], ["a photo of a one."]], 20)
    vectors = clip.text_model.embeddings.token_embedding(torch.tensor(context))
    embedded = place_vectors(clip, free, vectors[None, None])[0]
    found = text_features(clip, embedded, free.ends)
    torch.testing.assert_close(found, word_features(clip, words), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "count"), [("coop", 2_048), ("cocoop", 35_360)])
def test_parameter_count_is_the_published_one(make_clip, tokenizer, method, count):
    """Zhou et al. (2022), CoCoOp, table 2: ViT-B/16 with four vectors."""
    clip = make_clip(width=512, projection=512)
    trainable = learner_of(clip, tokenizer, method=method)
    assert sum(p.numel() for p in trainable.parameters.values()) == count
    assert trainable.parameters["ctx"].shape == (4, 512)


def test_a_silent_net_is_coop(clip, tokenizer, names, pictures):
    with_net = learner_of(clip, tokenizer, method="cocoop").model
    without = learner_of(clip, tokenizer, method="coop").model
    with torch.no_grad():
        with_net.meta_net.linear2.weight.zero_()
        with_net.meta_net.linear2.bias.zero_()
    found, wanted = (logits_of(m, pictures, names) for m in (with_net, without))
    torch.testing.assert_close(found, wanted, **EXACT)
    torch.testing.assert_close(without.predict(pictures, names, IMAGE), wanted, **EXACT)


def test_the_net_shifts_all_vectors_alike(clip, tokenizer, pictures):
    learner = learner_of(clip, tokenizer, reduction=2).model
    features = learner.look(pictures, IMAGE)
    before = learner.vectors(features)
    with torch.no_grad():
        learner.meta_net.linear2.bias.add_(torch.arange(16, dtype=torch.float64))
    moved = learner.vectors(features) - before
    wanted = torch.arange(16, dtype=torch.float64).expand(moved.shape)
    torch.testing.assert_close(moved, wanted, **EXACT)
    assert not torch.allclose(before[0], before[1])


def test_a_picture_does_not_see_the_others(clip, tokenizer, names, pictures):
    learner = learner_of(clip, tokenizer, reduction=2).model
    together = logits_of(learner, pictures, names)
    for place, picture in enumerate(pictures):
        alone = logits_of(learner, [picture], names)
        torch.testing.assert_close(alone[0], together[place], **EXACT)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_names_do_not_see_each_other(clip, tokenizer, names, pictures, position):
    learner = learner_of(clip, tokenizer, position=position).model
    logits = logits_of(learner, pictures, names)
    turned = logits_of(learner, pictures, names[::-1])
    torch.testing.assert_close(turned.flip(1), logits, **EXACT)
    more = logits_of(learner, pictures, (*names, "white moon"))
    torch.testing.assert_close(more[:, :-1], logits, **EXACT)


def test_positions_differ(clip, tokenizer, names, pictures):
    found = [
        logits_of(learner_of(clip, tokenizer, position=p).model, pictures, names)
        for p in ("end", "middle", "front")
    ]
    assert not torch.allclose(found[0], found[1])
    assert not torch.allclose(found[1], found[2])


def test_logits_are_cosines_times_the_scale(clip, tokenizer, names, pictures):
    learner = learner_of(clip, tokenizer).model
    bound = float(clip.logit_scale.exp()) * (1 + 1e-12)
    assert float(logits_of(learner, pictures, names).detach().abs().max()) <= bound


def test_only_the_prompt_gets_gradients_and_the_encoders_stay(clip, tokenizer, pictures):
    def digest():
        parts = (p.detach().numpy().tobytes() for p in clip.parameters())
        return hashlib.sha256(b"".join(parts)).hexdigest()

    before, task = digest(), CocoopTask()
    config = {"names": ["red disc", "blue ring", "three", "green bar", "one"]}
    generator = torch.Generator().manual_seed(0)
    trainable = task.adapt(clip, tokenizer, {}, config, generator)
    records = [Record(str(n), {Unit.RECORD: str(n)}, p) for n, p in enumerate(pictures)]
    batch = task.collate([[r] for r in records], tokenizer, config)
    optimizer = torch.optim.SGD(trainable.parameters.values(), lr=0.1)
    task.losses(trainable.model, batch).sum().backward()
    optimizer.step()
    assert {n for n, p in trainable.model.named_parameters() if p.grad is not None} == {
        "context.weight", "meta_net.linear1.weight", "meta_net.linear1.bias",
        "meta_net.linear2.weight", "meta_net.linear2.bias",
    }  # fmt: skip
    assert digest() == before


def test_pictures_of_names_that_are_not_trained_on_teach_nothing(clip, tokenizer, pictures):
    task, config = CocoopTask(), {"names": ["red disc", "blue ring", "three", "green bar", "one"]}
    trainable = task.adapt(clip, tokenizer, {}, config, torch.Generator().manual_seed(0))
    records = [Record(str(n), {Unit.RECORD: str(n)}, p) for n, p in enumerate(pictures)]
    batch = task.collate([[r] for r in records], tokenizer, config)
    losses = task.losses(trainable.model, batch)
    assert (losses == 0).tolist() == [False, False, False, True, True, False]


def moved_by_one_unit(rows, clip_norm, release):
    """How far the release of some gradients moves when one of them is left out, at most."""
    whole = release(rows, clip_norm)
    return max(
        float((whole - release(torch.cat([rows[:gone], rows[gone + 1 :]]), clip_norm)).norm())
        for gone in range(len(rows))
    )


def test_clipping_the_batch_mean_would_not_protect_a_picture():
    """The same test of sensitivity passes for pictures clipped each, and fails for their mean.

    Clipping the mean and dividing the clip by the batch, as one published repository accounts it,
    claims a sensitivity of C / 12 here; one picture moves the release by more.
    """
    task, config = CocoopTask(), {"names": ["red disc", "blue ring", "three"], "protocol": "all"}
    base, generator = load_base("pictures"), torch.Generator().manual_seed(6)
    trainable = task.adapt(base.model, base.tokenizer, {}, config, generator)
    known = [in_memory(name, as_png(draw(name, generator))) for name in config["names"] * 4]
    # The base knows them all; one wrong name among them is what a single picture can do.
    known[5] = replace(known[5], name="red disc")
    records = [Record(str(n), {Unit.RECORD: str(n)}, p) for n, p in enumerate(known)]
    batch = task.collate([[r] for r in records], base.tokenizer, config)
    with choose_engine(trainable) as engine:
        found = engine.gradients(
            lambda: task.losses(trainable.model, batch), batch.unit_of_row, batch.units
        )
    rows = torch.cat([gradient.flatten(1) for gradient in found.values()], dim=1)
    clip_norm, count = float(rows.mean(0).norm()), len(rows)

    def each(gradients, bound):
        lengths = gradients.norm(dim=1, keepdim=True)
        return (gradients * (bound / lengths).clamp(max=1)).sum(0) / count

    def mean(gradients, bound):
        middle = gradients.mean(0)
        return middle * min(1.0, bound / float(middle.norm()))

    claimed = clip_norm / count * (1 + 1e-6)  # float32 rounding
    assert moved_by_one_unit(rows, clip_norm, each) <= claimed
    assert moved_by_one_unit(rows, clip_norm, mean) > claimed


def test_controls_see_noise_of_their_own_or_nothing(clip, tokenizer, pictures):
    learner = learner_of(clip, tokenizer, condition="noise").model
    features = learner.look(pictures, IMAGE)
    seen = learner.seen(pictures, features)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(6, dtype=torch.float64))
    assert not torch.allclose(seen, features)
    torch.testing.assert_close(learner.seen(pictures[2:3], features[2:3])[0], seen[2])
    silent = learner_of(clip, tokenizer, condition="zero").model
    assert not silent.seen(pictures, features).any()


def test_features_are_computed_once(clip, tokenizer, pictures, monkeypatch):
    learner = learner_of(clip, tokenizer).model
    first = learner.look(pictures, IMAGE)
    monkeypatch.setattr(
        "wardround.client.tasks.cocoop.learner.image_features",
        lambda *_: pytest.fail("a picture was looked at twice"),
    )
    assert torch.equal(learner.look(pictures[::-1], IMAGE), first.flip(0))


def test_class_specific_vectors_belong_to_their_names(clip, tokenizer, pictures, names):
    trainable = learner_of(clip, tokenizer, names=3, method="coop", class_specific=True)
    assert trainable.parameters["ctx"].shape == (3, 4, 16)
    learner = trainable.model
    before = logits_of(learner, pictures, names[:3])
    with torch.no_grad():
        learner.context.weight[1].add_(torch.arange(16.0))
    after = logits_of(learner, pictures, names[:3])
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]], **EXACT)
    assert not torch.allclose(after[:, 1], before[:, 1])
    with pytest.raises(BadInput, match="2 names; this prompt has vectors for 3"):
        logits_of(learner, pictures, names[:2])


def test_random_vectors_are_small_and_public(clip, tokenizer):
    settings = {"context": "", "tokens": 16}
    first, again = (learner_of(clip, tokenizer, **settings).parameters["ctx"] for _ in range(2))
    assert first.shape == (16, 16)
    assert torch.equal(first, again)
    # 256 normals of deviation 0.02: the sample's is within 5 of its own errors, 0.02 / sqrt(512).
    assert abs(float(first.detach().std()) - 0.02) < 5 * 0.02 / 512**0.5


def test_a_language_model_is_refused(tokenizer):
    with pytest.raises(BadInput, match="needs a CLIPModel"):
        learner_of(torch.nn.Linear(1, 1), tokenizer)


def test_a_name_that_does_not_fit_is_refused(clip, tokenizer, pictures):
    learner = learner_of(clip, tokenizer).model
    with pytest.raises(BadInput, match="the base reads 20"):
        logits_of(learner, pictures, ("one " * 40,))
