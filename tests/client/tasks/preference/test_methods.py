"""Methods on scored replies by hand, and replies the model writes itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wardround.client.lora import AdapterConfig, attach_lora
from wardround.client.models import embedded_bases, load_base
from wardround.client.tasks.base import Record, WritesRecords
from wardround.client.tasks.preference.evaluation import evaluate_replies
from wardround.client.tasks.preference.likelihood import log_likelihoods
from wardround.client.tasks.preference.losses import LossSettings
from wardround.client.tasks.preference.methods import (
    METHODS,
    MethodSettings,
    Scored,
    find_method,
)
from wardround.client.tasks.preference.on_policy import SamplingSettings, write_replies
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.preference.rewards import RewardSettings, rule_scores, score_replies
from wardround.client.tasks.preference.task import PreferenceTask
from wardround.client.tasks.rows import encode, pad, pad_token_id
from wardround.client.tasks.sampling import sample_replies
from wardround.client.trainable import Trainable
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

PROMPT = "Patient: I have a cough since yesterday. Nurse:"
KIND = RewardSettings(phrases={"sorry to hear": 1.0, "call us": 1.5, "Most people": -0.5})


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(**changes: Any) -> Scored:
    """Two prompts: three replies scored 2, 0, 1 and two scored 5, 3."""
    whole = Scored(
        likely=numbers(-4, -6, -2, -3, -1),
        reference=numbers(-5, -5, -5, -5, -5),
        written=numbers(-4, -7, -2, -3, -2),
        tokens=numbers(2, 3, 1, 3, 1),
        scores=numbers(2, 0, 1, 5, 3),
        group=torch.tensor([0, 0, 0, 1, 1]),
        role=torch.tensor([1, -1, 0, 1, -1]),
        groups=2,
    )
    return replace(whole, **changes)


def loss(name: str, scored: Scored | None = None, **settings: float) -> list[float]:
    options = MethodSettings(**settings)
    found: list[float] = find_method(name)(scored or table(), LossSettings(), options).tolist()
    return found


def test_methods_by_hand() -> None:
    # Best-of-n: 4/2 and 3/3. Cloning of scores >= 2: (4/2)/3 and (3/3 + 1/1)/2.
    assert loss("best-of-n") == pytest.approx([2, 1])
    assert loss("filtered-cloning", least_score=2.0) == pytest.approx([2 / 3, 1])
    # Weights exp(score) cut to 10: (e^2 * 2 + 1 * 2 + e * 2) / 3 and (10 * 1 + 10 * 1) / 2.
    weighted = loss("reward-weighted", temperature=1.0, most_weight=10.0)
    assert weighted == pytest.approx([(2 * math.e**2 + 2 + 2 * math.e) / 3, 10])
    assert loss("feedme") == pytest.approx([(2 + 2) / 2, (1 + 1) / 2])
    # Advantages against the others' mean: 2 - .5, 0 - 1.5, 1 - 1; and 2, -2.
    assert loss("reinforce") == pytest.approx([(1.5 * 4 - 1.5 * 6 + 0) / 3, (2 * 3 - 2 * 1) / 2])
    # The pull: mean gains over the reference, (1 - 1 + 3) / 3 and (2 + 4) / 2.
    pulled = loss("reinforce", kl_weight=1.0)
    assert pulled == pytest.approx([-1 + 1, 2 + 3])


def test_ppos_ratio_is_clipped_on_the_side_that_helps() -> None:
    # Ratios 1, e, 1 and 1, e. Reply 2 of group 1 has advantage -1.5: max(1.5 e, 1.5 * 1.2) = 1.5 e.
    # Group 2: -2 * 1 and max(2 e, 2 * 1.2) = 2 e.
    assert loss("ppo") == pytest.approx([(-1.5 + 1.5 * math.e + 0) / 3, (-2 + 2 * math.e) / 2])
    better = table(likely=numbers(-3, -7, -2, -3, -2))
    # Now reply 1 has ratio e and advantage 1.5: clipped to 1.2, so no more is gained.
    assert loss("ppo", better)[0] == pytest.approx((-1.5 * 1.2 + 1.5) / 3)


def test_pair_losses_take_best_and_worst() -> None:
    # DPO by hand: gains 1 and -1, and 2 and 4: margins 2 and -2, beta 0.1.
    expected = [math.log1p(math.exp(-0.2)), math.log1p(math.exp(0.2))]
    assert loss("dpo") == pytest.approx(expected)


@pytest.mark.parametrize("name", METHODS)
def test_no_group_looks_at_another(name: str) -> None:
    settings = LossSettings(label_smoothing=0.1)
    method = find_method(name)
    before = method(table(), settings, MethodSettings())
    moved = table(
        likely=numbers(-4, -6, -2, -9, -8),
        scores=numbers(2, 0, 1, 50, -3),
        written=numbers(-4, -7, -2, -1, -1),
    )
    assert method(moved, settings, MethodSettings())[0].item() == before[0].item()


@pytest.fixture(scope="module")
def advice() -> tuple[Trainable, Any]:
    """The embedded advice base with an adapter that changes nothing yet."""
    base = load_base("advice", sha256=embedded_bases()["advice"])
    config = AdapterConfig(("mlp.down_proj",), rank=4)
    return attach_lora(base.model, config, torch.Generator().manual_seed(0)), base.tokenizer


def draw(count: int) -> torch.Generator:
    return torch.Generator().manual_seed(count)


def naive_sample(
    model: Any, tokenizer: Any, prompt: str, generator: torch.Generator, most: int
) -> str:
    """Token by token, without cache, padding or batch."""
    ids = list(tokenizer(prompt)["input_ids"])
    start = len(ids)
    while len(ids) - start < most:
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        token = int(
            torch.multinomial(torch.softmax(logits.double(), 0)[None], 1, generator=generator)
        )
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
    text: str = tokenizer.decode(ids[start:], skip_special_tokens=True)
    return text.strip()


def test_cached_sampling_equals_the_naive_loop(advice: tuple[Trainable, Any]) -> None:
    trainable, tokenizer = advice
    for seed in range(3):
        with torch.no_grad():
            expected = naive_sample(trainable.model, tokenizer, PROMPT, draw(seed), 24)
        assert sample_replies(trainable.model, tokenizer, [PROMPT], draw(seed), 24) == [expected]


def test_padding_changes_nobodys_reply(advice: tuple[Trainable, Any]) -> None:
    trainable, tokenizer = advice
    prompts = [PROMPT, "Patient: My father has a small burn since this morning. Nurse:"]
    together = sample_replies(trainable.model, tokenizer, prompts, draw(0), 24, temperature=0)
    alone = [
        sample_replies(trainable.model, tokenizer, [one], draw(0), 24, temperature=0)[0]
        for one in prompts
    ]
    assert together == alone


def test_the_base_answers_as_its_world_does(advice: tuple[Trainable, Any]) -> None:
    # In the world 30 of 100 answers are kind and 25 say when to call. Of 300 replies, 3.9 standard
    # deviations are 10 points: a false alarm in two thousand runs at most; the seed is fixed.
    trainable, tokenizer = advice
    replies = sample_replies(trainable.model, tokenizer, [PROMPT] * 300, draw(5), 48)
    assert sum("sorry to hear" in reply for reply in replies) / 300 == pytest.approx(0.30, abs=0.10)
    assert sum("Call us" in reply for reply in replies) / 300 == pytest.approx(0.25, abs=0.10)


def records(count: int) -> list[list[Record]]:
    return [
        [Record(f"r{i}", {Unit.RECORD: f"r{i}"}, Judged(PROMPT, ("a", "b"), (1, 0)))]
        for i in range(count)
    ]


def written(
    advice: tuple[Trainable, Any], sampling: SamplingSettings, steps: Sequence[int], count: int = 6
) -> list[list[Judged]]:
    trainable, tokenizer = advice
    notebook: dict[str, Any] = {}
    found = []
    for step in steps:
        units = write_replies(
            trainable.model,
            tokenizer,
            records(count),
            sampling,
            KIND,
            128,
            step,
            notebook,
            draw(step),
        )
        found.append([unit[0].content for unit in units])
    return found


def test_written_replies_carry_their_scores_and_likelihoods(advice: tuple[Trainable, Any]) -> None:
    trainable, tokenizer = advice
    (judged, *_), *_ = written(advice, SamplingSettings(share=1.0, replies=3, max_tokens=40), [1])
    assert len(judged.replies) == 3
    assert list(judged.scores) == rule_scores(KIND, judged.replies)
    with torch.no_grad():
        rows = [encode(tokenizer, PROMPT, reply, 128) for reply in judged.replies]
        expected, _ = log_likelihoods(trainable.model, pad(rows, pad_token_id(tokenizer)))
    assert judged.written == pytest.approx(expected.tolist(), abs=1e-4)


def test_replies_are_reused_as_often_as_asked(advice: tuple[Trainable, Any]) -> None:
    sampling = SamplingSettings(share=1.0, replies=2, reuse=2, max_tokens=40)
    first, second, third = written(advice, sampling, [1, 2, 3])
    assert first == second
    assert first != third


def test_a_mixed_share_keeps_some_recorded_replies(advice: tuple[Trainable, Any]) -> None:
    (kept,) = written(advice, SamplingSettings(share=0.5, max_tokens=8), [1], count=40)
    recorded = sum(judged.replies == ("a", "b") for judged in kept)
    # 40 fair coins: outside 8..32 with probability 1e-4; the seed is fixed.
    assert 8 <= recorded <= 32


def test_offline_touches_nothing_and_the_task_says_it_writes() -> None:
    task = PreferenceTask()
    assert isinstance(task, WritesRecords)
    units = records(2)
    kept = task.before_step(torch.nn.Linear(1, 1), None, units, {}, 1, {}, draw(0))
    assert kept is units


def test_a_linear_reward_reads_the_last_state(advice: tuple[Trainable, Any]) -> None:
    trainable, tokenizer = advice
    model: Any = trainable.model
    weights = torch.linspace(-1, 1, 80)
    reward = RewardSettings(weights=tuple(weights.tolist()))
    found = score_replies(reward, model, tokenizer, [PROMPT, PROMPT], ["No.", "Rest a while."], 128)
    for reply, score in zip(["No.", "Rest a while."], found, strict=True):
        ids, _ = encode(tokenizer, PROMPT, reply, 128)
        with torch.no_grad():
            states = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
        assert score == pytest.approx(float(states[-1][0, -1] @ weights), abs=1e-4)


def test_before_training_nothing_is_won_or_lost(advice: tuple[Trainable, Any]) -> None:
    trainable, tokenizer = advice
    judged = [Judged(PROMPT, ("Call us.", "No."), (1, 0)), Judged(PROMPT, ("x", "y"), (1, 0))]
    found = evaluate_replies(trainable.model, tokenizer, judged, KIND, 128, 32)
    assert found["accuracy"] == 0.5
    assert found["win_rate"] == 0.5
    assert found["kl"] == 0.0
    assert found["reward"] == found["reference_reward"]


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"method": "aot"}, "couples the pairs"),
        ({"method": "exo"}, "label_smoothing"),
        ({"sampling": {"share": 1.0}}, "need a"),
        (
            {"sampling": {"share": 1.0, "replies": 1}, "reward": {"per_word": 1.0}},
            "replies is 1",
        ),
        ({"reward": {"weights": [1.0], "per_word": 1.0}}, "one kind of reward"),
        ({"least_gap": -1.0}, "least_gap is -1"),
    ],
)
def test_settings_that_cannot_be_used_are_named(config: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        PreferenceTask().check(config)


def test_a_lone_reply_is_refused_where_two_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text('{"prompt": "Q", "completion": "a", "label": true}\n')
    with pytest.raises(BadInput, match="needs two or more"):
        PreferenceTask().load(path, {"method": "dpo"})
    assert len(PreferenceTask().load(path, {"method": "filtered-cloning"})) == 1
