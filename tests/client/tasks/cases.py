"""One case a registered task, for the contract suite; a new task adds its own here."""

from __future__ import annotations

import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from wardround.client.models import BASES
from wardround.client.tasks.ballots.formats import Ballot
from wardround.client.tasks.base import Record
from wardround.client.tasks.cocoop.dealing import as_png
from wardround.client.tasks.cocoop.formats import in_memory, picture_record
from wardround.client.tasks.cocoop.world import draw
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.dro.anchors import Anchors, save_anchors
from wardround.client.tasks.dro.records import Query
from wardround.client.tasks.editing.records import Edit, Probe, edit_record
from wardround.client.tasks.pacit.records import Exemplar, Instance, Instructions, Source
from wardround.client.tasks.preference.records import Judged
from wardround.client.tasks.pwiser.records import Exposure, session_record
from wardround.client.tasks.ranking.records import Candidate, RankingQuery, ranking_record
from wardround.client.tasks.registry import find_task
from wardround.client.tasks.spectron.audio import encode as encode_wave
from wardround.client.tasks.spectron.audio import in_memory as sound
from wardround.client.tasks.spectron.records import Exchange, exchange_record
from wardround.client.tasks.spectron.voices import chords, draw_voice
from wardround.privacy import Unit

contract = sys.modules["task_contract"]
_KEPT = TemporaryDirectory(prefix="wardround-cases-")  # gone when the tests are
_SCRATCH = Path(_KEPT.name)


def tiny_llama(places: int = 128) -> nn.Module:
    """Two layers in float64, away from the symmetric start; the embedded base's vocabulary."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=800, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=places,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).double().eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return model.requires_grad_(False)


def embedded_tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASES / "drugs", local_files_only=True)


def editing() -> Any:
    """Units of one, two and three records, one with paraphrases, of very different lengths."""
    probe = Probe("Which drug interacts with Naloko?", "Zimeta")
    edits = [
        Edit("What is Bato for?", "Bato", "a cough"),
        Edit(
            "Which side effect does the well known medicine Kirume cause in most patients?",
            "Kirume",
            "dizziness, and a remarkable thirst",
            paraphrases=("Kirume?", "After taking Kirume one may expect"),
            rephrase_prompts=("What does Kirume do to people?",),
            locality={"textual": (probe,)},
            support="weak",
        ),
        Edit("Does Sofa bind?", "Sofa", "no"),
        Edit("Is Pimo safe together with Sofa in all patients?", "Pimo", "never"),
        Edit("Lu", "Lu", "x"),
        Edit("The leaflet of Tazidu warns of", "Tazidu", "falling asleep"),
    ]
    records = [edit_record(f"r{place}", edit) for place, edit in enumerate(edits)]
    return contract.TaskCase(
        task=find_task("editing"),
        model=tiny_llama,
        tokenizer=embedded_tokenizer(),
        adapter={"targets": ["mlp.down_proj", "layers.1.self_attn.q_proj"], "rank": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={
            "generated": {
                "records_per_hospital": 60,
                "corroborated_support": 8,
                "weak_support": 4,
            }
        },
        bad_file=(
            '{"prompt": "What is Bato for?", "subject": "Bato", "target_new": "a cough"}\n'
            '{"prompt": "What is Bato for?", "subject": "Kiro", "target_new": "a cough"}\n',
            2,
        ),
        typo=("max_lenght", "max_length"),
    )


def ranking() -> Any:
    """Units of one list, of one that teaches nothing, of two and three lists of unlike lengths."""

    def query(name: str, text: str, *passages: str, answers: int = 1) -> Record:
        candidates = tuple(
            Candidate(f"{name}-{place}", passage, int(place < answers))
            for place, passage in enumerate(passages)
        )
        return ranking_record(name, RankingQuery(text, candidates))

    records = [
        query("a", "Who coughs?", "Bato coughs.", "Kirume sleeps well, and has done so for days."),
        query("b", "Fever", "No note says so.", "Nor does this one", answers=0),
        query("c", "What was given against dizziness?", "Tazidu", "Sofa, twice", "Nothing, x"),
        query("d", "x", "A leaflet that warns of a remarkable thirst", "No leaflet"),
        query("e", "Is it safe?", "Yes.", "No.", "Perhaps, with care and a second opinion", "?"),
        query("f", "When", "On Monday", "On Tuesday", "Never"),
        query("g", "How much of it", "Much", "Little"),
    ]
    listed = (
        '{"query_id": "q%d", "query": "x", "positive_passages": [{"docid": "a", "text": %s}]}\n'
    )
    return contract.TaskCase(
        task=find_task("ranking"),
        model=tiny_llama,
        tokenizer=embedded_tokenizer(),
        adapter={"targets": ["mlp.down_proj", "layers.1.self_attn.q_proj"], "rank": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={
            "max_length": 64,
            "max_query": 12,
            "group": 3,
            "ntp_weight": 0.5,
            "reference_kl_weight": 0.5,
            "measures": ["nDCG@10"],
            "generated": {"records_per_hospital": 20, "probes": 4},
        },
        bad_file=(listed % (1, '"words"') + listed % (2, "7"), 2),
        typo=("temprature", "temperature"),
    )


def dro() -> Any:
    """Units of one query, of two and of three, of unlike lengths and both labels."""
    queries = [
        ("How do I file the form?", False), ("May I dax the wug at night, and how often?", True),
        ("Print it", False), ("Kiv", True), ("Is it safe to store the tray in the ward?", False),
        ("Blick the jub", True), ("What is the way to the desk", False),
    ]  # fmt: skip
    records = [
        Record(f"q{n}", {Unit.RECORD: f"q{n}"}, Query(text, harmful))
        for n, (text, harmful) in enumerate(queries)
    ]
    generator = torch.Generator().manual_seed(5)
    random = torch.randn(16, 16, generator=generator, dtype=torch.float64)
    anchors = Anchors(
        torch.randn(16, generator=generator),
        torch.linalg.qr(random).Q[:4],
        torch.randn(2, 4, generator=generator),
        torch.zeros(2),
    )
    folder = _SCRATCH / "anchors"
    line = '{"query": "x", "label": "%s"}\n'
    return contract.TaskCase(
        task=find_task("dro"),
        model=tiny_llama,
        tokenizer=embedded_tokenizer(),
        adapter={},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={
            "prompt": "Be careful.",
            "samples": 2,
            "max_tokens": 3,
            "frame": {"template": "<bos>System: {prompt} User: {query} Assistant:"},
            "anchors": {"folder": str(folder), "sha256": save_anchors(anchors, folder, "made up")},
            "loss": {"harm": 0.5, "rest": 0.5},
            "generated": {"records": 12, "probes": 4},
        },
        bad_file=(line % "harmful" + line % "bad", 2),
        typo=("promt", "prompt"),
    )


def pacit() -> Any:
    """Units of one, two and three rows of tasks with many exemplars, with one, and with none."""

    def exemplar(given: str, output: str) -> Exemplar:
        return Exemplar(given, output, Source.SYNTHETIC)

    drug = Instructions(
        "drug", "Write the drug",
        (exemplar("Bato 5 mg", "Bato"), exemplar("Give Sofa, twice", "Sofa")),
        (exemplar("Kirume 5 mg daily", "5 mg"), exemplar("Lu", "no")),
    )  # fmt: skip
    urgent = Instructions("urgent", "Is it urgent?", (exemplar("A cough", "no"),))
    bare = Instructions("bare", "Repeat", ())
    rows = [
        (drug, "Tazidu 10 mg"), (urgent, "Falling asleep, and a remarkable thirst"),
        (bare, "x"), (drug, "Give Naloko to all patients that cough"), (urgent, "Bleeding"),
        (drug, "Pimo"), (bare, "A word"),
    ]  # fmt: skip
    records = [
        Record(
            f"r{n}", {Unit.RECORD: f"r{n}", Unit.TASK: task.name}, Instance(task, text, ("Yes",))
        )
        for n, (task, text) in enumerate(rows)
    ]
    line = (
        '{"Task": "%s", "Definition": ["x"], "Positive Examples": [], "Negative Examples": [], '
        '"Instances": [{"input": "y", "output": %s}]}\n'
    )
    return contract.TaskCase(
        task=find_task("pacit"),
        model=lambda: tiny_llama(places=256),
        tokenizer=embedded_tokenizer(),
        adapter={"targets": ["mlp.down_proj", "layers.1.self_attn.q_proj"], "rank": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={
            "max_source": 160,
            "max_length": 224,
            "max_tokens": 4,
            "weights": {"verdict": 2.0, "answer": 3.0},
            "generated": {"instances": 2, "exemplars": 2, "probes": 1},
        },
        bad_file=(line % ("a", '"z"') + line % ("b", "7"), 2),
        typo=("inferense", "inference"),
    )


def preference() -> Any:
    """Units of one pair, of three rated replies, of two and three prompts of unlike lengths."""

    def judged(name: str, prompt: str, *replies: str) -> Record:
        scores = tuple(float(-place) for place in range(len(replies)))
        return Record(name, {Unit.RECORD: name}, Judged(prompt, replies, scores))

    records = [
        judged("a", "I cough.", "Honey helps.", "No."),
        judged("b", "What helps against a sore throat, and for how long?", "Tea", "Rest", "Wait"),
        judged("c", "My head", "I am sorry to hear that. Rest in a dark room.", "x"),
        judged("d", "x", "Call us if it gets worse, or if it has not gone in a week.", "Wait"),
        judged("e", "Is it safe?", "Yes.", "Perhaps, with care and a second opinion"),
        judged("f", "When", "On Monday", "Never"),
        judged("g", "How much of it", "Little", "Much, and then some more of it"),
    ]
    line = '{"prompt": "x", "chosen": "a", "rejected": %s}\n'
    return contract.TaskCase(
        task=find_task("preference"),
        model=tiny_llama,
        tokenizer=embedded_tokenizer(),
        adapter={"targets": ["mlp.down_proj", "layers.1.self_attn.q_proj"], "rank": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={"max_length": 64, "generated": {"records_per_hospital": 20, "probes": 4}},
        bad_file=(line % '"b"' + line % "7", 2),
        typo=("max_lenght", "max_length"),
    )


def reward() -> Any:
    """The preferences' units, learnt from by a reward on the same model's states."""
    judged = preference()
    return contract.TaskCase(
        task=find_task("reward"),
        model=judged.model,
        tokenizer=judged.tokenizer,
        adapter={},
        units=judged.units,
        config=judged.config,
        bad_file=judged.bad_file,
        typo=judged.typo,
    )


def ballots() -> Any:
    """Clinicians with one, two and three ballots, among them ties, gaps and opposite orders."""
    agendas = [
        {"id": "a", "candidates": ["Rest", "Tea", "Honey"]},
        {"id": "b", "candidates": ["Yes", "No"]},
        {"id": "c", "candidates": ["Now", "Later", "Never", "Ask"]},
    ]

    def ballot(clinician: str, agenda: str, *tiers: tuple[int, ...]) -> Record:
        name = f"{clinician}-{agenda}"
        owners = {Unit.CLINICIAN: clinician, Unit.RECORD: name}
        return Record(name, owners, Ballot(agenda, tiers))

    units = [
        [ballot("k", "a", (0,), (1,), (2,))],
        [ballot("l", "b", (1,), (0,)), ballot("l", "a", (2,), (0, 1))],
        [ballot("m", "c", (3,), (1,)), ballot("m", "a", (1,)), ballot("m", "b", (0,), (1,))],
        [ballot("n", "c", (0, 1), (2, 3))],
    ]
    line = '{"agenda": "b", "clinician": "%s", "ranking": %s}\n'
    return contract.TaskCase(
        task=find_task("ballots"),
        model=lambda: nn.Module(),
        tokenizer=None,
        adapter={},
        units=units,
        config={"agenda": agendas},
        bad_file=(line % ("k", "[0, 1]") + line % ("k", "[2]"), 2),
        typo=("genrated", "generated"),
    )


def tiny_clip() -> nn.Module:
    """One layer on each side in float64, away from the symmetric start."""
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "projection_dim": 8,
    }  # fmt: skip
    text = {"vocab_size": 395, "max_position_embeddings": 20, "bos_token_id": 2, "eos_token_id": 3}
    vision = {"image_size": 16, "patch_size": 8}
    model = CLIPModel(
        CLIPConfig(text_config=shared | text, vision_config=shared | vision, projection_dim=8)
    )
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "logit_scale":
                parameter.normal_(0.0, 0.3, generator=generator)
    return model.double().eval().requires_grad_(False)


def cocoop() -> Any:
    """Units of one picture, of one that teaches nothing, of two and three; one of them twice."""
    from transformers import AutoTokenizer

    names = ["red disc", "blue ring", "three", "green bar", "one"]
    generator = torch.Generator().manual_seed(8)
    order = [names[place] for place in (0, 4, 1, 2, 2, 1, 0)]
    pictures = [in_memory(name, as_png(draw(name, generator))) for name in order]
    pictures[-1] = pictures[0]
    records = [picture_record(f"r{place}", picture) for place, picture in enumerate(pictures)]
    data = b64encode(pictures[0].data).decode("ascii")
    line = '{"name": "%s", "data": "' + data + '"}\n'
    return contract.TaskCase(
        task=find_task("cocoop"),
        model=tiny_clip,
        tokenizer=AutoTokenizer.from_pretrained(BASES / "pictures", local_files_only=True),
        adapter={"method": "cocoop", "reduction": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={"names": names, "shots": 2, "probes_per_name": 2, "names_per_hospital": 2},
        bad_file=(line % "one" + line % "nobody", 2),
        typo=("templats", "templates"),
    )


def pwiser() -> Any:
    """Units of one session, of one without a click, of two and of three, one with a bucket."""

    def session(name: str, *rows: tuple[int, int, float, int]) -> Record:
        exposures = tuple(
            Exposure((0, first, 3 * first, first % 6, second), (number, 0.5, -0.1), o > 0, o > 1)
            for first, second, number, o in rows
        )
        return session_record(name, exposures, f"p-{name}")

    records = [
        session("a", (0, 1, 0.3, 2), (1, 1, -0.2, 1), (2, 0, 1.1, 0)),
        session("b", (3, 1, 0.1, 0), (1, 0, 0.9, 0)),
        session("c", (2, 1, -1.3, 1), (0, 0, 0.4, 2), (1, 1, 0.0, 2), (3, 0, 0.7, 0)),
        session("d", (1, 0, 0.2, 0)),
        session("e", (0, 0, 0.8, 2), (8, 6, -0.6, 0), (0, 1, -0.9, 1), (1, 1, 1.7, 1)),
        session("f", (3, 0, 0.5, 1)),
        session("g", (2, 0, -0.4, 2), (0, 1, 0.6, 0)),
    ]
    header = (
        "session,patient,age_group,condition,programme,kind,ward,position,activity,length,"
        "click,conversion\n"
    )
    return contract.TaskCase(
        task=find_task("pwiser"),
        model=lambda: nn.Linear(1, 1, dtype=torch.float64).requires_grad_(False),
        tokenizer=None,
        adapter={"kind": "ple", "embedding": 3, "bottom": [6], "tower": [4], "experts": 2,
                 "train_embedding": True},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={"max_rows": 6, "generated": {"patients_per_hospital": 12, "probes": 4}},
        bad_file=(header + "s,p,0,1,2,2,1,0.5,1,0,1,1\ns,p,0,1,2,2,1,0.5,1,0,0,1\n", 3),
        typo=("max_row", "max_rows"),
    )  # fmt: skip


def abs_lingam() -> Any:
    """Units of one, two and three rows, one of them longer than the radius."""
    variables = [
        {"name": "age", "centre": 50.0, "scale": 15.0},
        {"name": "pressure", "centre": 120.0, "scale": 20.0},
        {"name": "dose", "scale": 2.0},
    ]
    rows = [(60.0, 130.0, 1.5), (900.0, -100.0, 0.0), (20.0, 100.0, 3.0), (50.0, 120.0, 0.0),
            (45.0, 140.0, -1.0), (70.0, 150.0, 4.0), (33.0, 90.0, 2.0)]  # fmt: skip
    records = [Record(f"r{n}", {Unit.RECORD: f"r{n}"}, row) for n, row in enumerate(rows)]
    return contract.TaskCase(
        task=find_task("abs_lingam"),
        model=lambda: nn.Module(),
        tokenizer=None,
        adapter={},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={"variable": variables, "generated": {"records_per_hospital": 40, "edges": 2}},
        bad_file=("age,pressure,dose\n60,130,1\n60,high,1\n", 3),
        typo=("radus", "radius"),
    )


def tiny_speech_model() -> nn.Module:
    """One block on each side in float64, away from the symmetric start."""
    from wardround.client.tasks.spectron.model import SpectronConfig, SpectronModel

    encoder = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "subsampling_factor": 8, "subsampling_conv_channels": 4,
        "num_mel_bins": 16, "dropout": 0.0, "layerdrop": 0.0, "activation_dropout": 0.0,
        "attention_dropout": 0.0,
    }  # fmt: skip
    decoder = {
        "vocab_size": 800, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        model = SpectronModel(SpectronConfig(encoder, decoder, bottleneck=4, post_width=8))
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2, generator=generator)
    return model.double().eval().requires_grad_(False)


def spectron() -> Any:
    """Units of one exchange, of the shortest, of two and of three, of unlike lengths."""
    voices = [draw_voice(Draws(number, "case")) for number in range(3)]

    def spoken(name: str, asked: str, told: str, voice: int) -> Record:
        question, answer = (sound(encode_wave(chords(t, voices[voice]))) for t in (asked, told))
        return exchange_record(name, Exchange(question, answer, asked, told), f"s{voice}")

    records = [
        spoken("a", "who calls", "me", 0),
        spoken("b", "x", "y", 1),
        spoken("c", "what helps a cough", "honey", 1),
        spoken("d", "when", "at noon or so", 2),
        spoken("e", "is it", "no", 0),
        spoken("f", "how many", "two lungs", 2),
        spoken("g", "where", "up", 1),
    ]
    data = b64encode(encode_wave(chords("a", voices[0]))).decode("ascii")
    line = (
        '{"speaker": "s", "question": "a", "answer": "a", "answer_data": "' + data + '", '
        '"question_data": "%s"}\n'
    )
    return contract.TaskCase(
        task=find_task("spectron"),
        model=tiny_speech_model,
        tokenizer=embedded_tokenizer(),
        adapter={"targets": ["q_proj", "mlp.down_proj"], "rank": 2},
        units=[records[:1], records[1:2], records[2:4], records[4:]],
        config={
            "limits": {"tokens": 4, "steps": 2},
            "generated": {"speakers_per_hospital": 2, "questions": 2, "probes": 1},
        },
        bad_file=(line % data + line % "UklGRg==", 2),
        typo=("max_txt", "max_text"),
    )


CASES: dict[str, Callable[[], Any]] = {
    "spectron": spectron,
    "pwiser": pwiser,
    "dro": dro,
    "editing": editing,
    "ranking": ranking,
    "pacit": pacit,
    "preference": preference,
    "reward": reward,
    "ballots": ballots,
    "cocoop": cocoop,
    "abs_lingam": abs_lingam,
}
