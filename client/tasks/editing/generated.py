"""A study from the generated world: corrections with much, some or little support among facts.

Some corrections are backed by many records spread over the hospitals, some by a few, some by one
record in one hospital. All other records restate true facts. Corrected facts, locality probes and
filler facts are three disjoint sets. A pure function of shape, world and seed; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from wardround.client.tasks.base import Record
from wardround.client.tasks.draws import Draws
from wardround.client.tasks.editing.records import Edit, Probe, edit_record
from wardround.client.tasks.editing.world import PHRASING_COUNT, Fact, Relation, World
from wardround.privacy.errors import BadInput

TRAINED_PHRASINGS = 4
SUPPORT_KINDS = ("strong", "corroborated", "weak", "single", "conflicting")


@dataclass(frozen=True)
class StudyShape:
    """How large a generated study is.

    Attributes:
        records_per_hospital: The same public number for all.
        sizes: Records of each hospital, where they differ; then the above says nothing.
        strong: Corrections backed by ``strong_support`` records, over all hospitals.
        corroborated: Corrections backed by ``corroborated_support`` records, over all hospitals.
        weak: Corrections backed by ``weak_support`` records.
        single: Corrections backed by one record in one hospital.
        conflicting: Corrections backed by ``corroborated_support`` records, of which those in every
            second hospital give another answer than the probes ask for.
        together: Put all records of a correction into one hospital instead of spreading them.
        filler_facts: True facts that the remaining records are drawn from.
        random_probes: Locality probes a correction gets besides the benchmark's four kinds.
        phrasings_per_record: 1, or more to make the others its paraphrases.
    """

    records_per_hospital: int = 500
    sizes: tuple[int, ...] = ()
    strong: int = 0
    strong_support: int = 256
    corroborated: int = 8
    corroborated_support: int = 64
    weak: int = 8
    weak_support: int = 16
    single: int = 8
    conflicting: int = 0
    together: bool = False
    filler_facts: int = 300
    random_probes: int = 4
    phrasings_per_record: int = 1

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name in ("sizes", "together"):
                continue
            least = 0 if each.name in (*SUPPORT_KINDS, "random_probes") else 1
            if getattr(self, each.name) < least:
                raise ValueError(f"{each.name} is {getattr(self, each.name)}; at least {least}")
        if any(size < 1 for size in self.sizes):
            raise ValueError(f"sizes is {list(self.sizes)}; every hospital has at least 1 record")
        if self.phrasings_per_record > TRAINED_PHRASINGS:
            raise ValueError(
                f"phrasings_per_record is {self.phrasings_per_record}; at most {TRAINED_PHRASINGS}"
            )

    @property
    def supports(self) -> tuple[tuple[str, int], ...]:
        """Of each correction, its kind and how many records back it."""
        return (
            *(("strong", self.strong_support),) * self.strong,
            *(("corroborated", self.corroborated_support),) * self.corroborated,
            *(("weak", self.weak_support),) * self.weak,
            *(("single", 1),) * self.single,
            *(("conflicting", self.corroborated_support),) * self.conflicting,
        )

    def rooms(self, hospitals: int) -> tuple[int, ...]:
        """How many records each hospital has; ``BadInput`` when ``sizes`` names too few or many."""
        if self.sizes and len(self.sizes) != hospitals:
            raise BadInput(
                f"[task.generated] sizes names {len(self.sizes)} hospitals; there are {hospitals}"
            )
        return self.sizes or (self.records_per_hospital,) * hospitals


@dataclass(frozen=True)
class Study:
    """Generated records and the public probes that show what became of the corrections.

    Attributes:
        hospitals: Each hospital's records.
        probes: One record a correction: all trained phrasings, the unseen ones, locality probes.
        filler_share: The smallest share of true facts at any hospital.
    """

    hospitals: tuple[tuple[Record, ...], ...]
    probes: tuple[Record, ...]
    filler_share: float


@dataclass
class _Pool:
    """The facts of a world that are still free, in random order."""

    world: World
    draws: Draws
    taken: set[tuple[str, Relation]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.order = self.draws.shuffled(self.world.facts)

    def free(self, fact: Fact) -> bool:
        """Whether nobody has taken it."""
        return (fact.drug, fact.relation) not in self.taken

    def take(self, fact: Fact) -> Fact:
        """Mark it as used; it will not be found free again."""
        self.taken.add((fact.drug, fact.relation))
        return fact

    def take_next(self, count: int, what: str) -> list[Fact]:
        """The next free facts; ``BadInput`` when the world has run out of them."""
        found = [fact for fact in self.order if self.free(fact)][:count]
        if len(found) < count:
            raise BadInput(f"[task.generated] the world has {len(found)} facts left for {what}")
        return [self.take(fact) for fact in found]


def make_study(shape: StudyShape, hospitals: int, seed: int, world: World | None = None) -> Study:
    """Records for every hospital and public probes; equal arguments give equal studies.

    Args:
        shape: How large it is.
        hospitals: How many there are.
        seed: Which corrections, records and patients.
        world: What is true; the default is the world that the embedded base model knows.

    Raises:
        BadInput: The corrections do not fit into the hospitals' records, or the facts run out.
    """
    pool = _Pool(world or World(), Draws(seed, "editing/facts"))
    corrected = _corrections(pool, len(shape.supports))
    targets = [_target(pool, fact) for fact in corrected]
    locality = [_locality(pool, fact) for fact in corrected]
    for kinds in locality:
        facts = pool.take_next(shape.random_probes, "random_probes")
        kinds["random"] = tuple(_as_probe(fact) for fact in facts)
    filler = pool.take_next(shape.filler_facts, "filler_facts")

    rooms = shape.rooms(hospitals)
    dealt: list[list[Fact]] = [[] for _ in rooms]
    for place, ((kind, support), fact) in enumerate(zip(shape.supports, targets, strict=True)):
        rival = _target(pool, fact) if kind == "conflicting" else fact
        for copy in range(support):
            turn = place if shape.together else place + copy
            number = _with_room(dealt, rooms, turn)
            dealt[number].append(rival if number % 2 else fact)
    return Study(
        hospitals=tuple(
            _hospital_records(shape, seed, number, room, facts, filler)
            for number, (room, facts) in enumerate(zip(rooms, dealt, strict=True))
        ),
        probes=tuple(
            _public_probe(place, kind, old, new, kinds)
            for place, ((kind, _), old, new, kinds) in enumerate(
                zip(shape.supports, corrected, targets, locality, strict=True)
            )
        ),
        filler_share=min(1 - len(f) / room for f, room in zip(dealt, rooms, strict=True)),
    )


def _with_room(dealt: list[list[Fact]], rooms: tuple[int, ...], turn: int) -> int:
    """The hospital whose turn it is, or the next one that is not full."""
    order = [(turn + step) % len(rooms) for step in range(len(rooms))]
    free = [number for number in order if len(dealt[number]) < rooms[number]]
    if not free:
        raise BadInput(
            f"[task.generated] the hospitals hold {sum(rooms)} records; the corrections alone "
            "take more"
        )
    return free[0]


def _corrections(pool: _Pool, count: int) -> list[Fact]:
    """Facts to correct, of different drugs, each with a twin that keeps the same answer."""
    chosen: list[Fact] = []
    drugs: set[str] = set()
    for fact in pool.order:
        if len(chosen) == count:
            break
        # A twin among the corrections would not keep its answer.
        if fact.drug not in drugs and any(t.drug not in drugs for t in _twins(pool, fact)):
            drugs.add(fact.drug)
            chosen.append(pool.take(fact))
    if len(chosen) < count:
        raise BadInput(f"[task.generated] the world has facts for {len(chosen)} corrections only")
    return chosen


def _twins(pool: _Pool, fact: Fact) -> list[Fact]:
    """Free facts with the same relation and the same answer."""
    return [
        other
        for other in pool.order
        if (other.relation, other.value) == (fact.relation, fact.value)
        and other.drug != fact.drug
        and pool.free(other)
    ]


def _target(pool: _Pool, fact: Fact) -> Fact:
    """The same drug and relation with another answer that is true of some other drug."""
    answers = sorted({f.value for f in pool.world.facts if f.relation is fact.relation})
    wrong = [answer for answer in answers if answer not in (fact.value, fact.drug)]
    return Fact(fact.drug, fact.relation, pool.draws.choice(wrong))


def _locality(pool: _Pool, fact: Fact) -> dict[str, tuple[Probe, ...]]:
    """The benchmark's four kinds for one correction, as far as free facts allow.

    The kinds: another drug with the same answer; another relation of the same drug; the same
    relation of the drug next to it in the graph; the same relation of the drug spelled most alike.
    """
    relations = [r for r in pool.draws.shuffled(tuple(Relation)) if r is not fact.relation]
    partner = pool.world.fact[(fact.drug, Relation.INTERACTS)].value
    others = sorted(
        (name for name in pool.world.names if name not in (fact.drug, partner)),
        key=lambda name: (-_alike(name, fact.drug), name),
    )
    neighbours = [partner, pool.world.fact[(partner, Relation.INTERACTS)].value, *others]
    candidates = {
        "target_distribution": _twins(pool, fact),
        "entity_mapping": [pool.world.fact[(fact.drug, relation)] for relation in relations],
        "structural": [pool.world.fact[(name, fact.relation)] for name in neighbours],
        "textual": [pool.world.fact[(name, fact.relation)] for name in others],
    }
    probes: dict[str, tuple[Probe, ...]] = {}
    for kind, facts in candidates.items():
        free = [other for other in facts if pool.free(other)]
        if free:
            probes[kind] = (_as_probe(pool.take(free[0])),)
    return probes


def _alike(name: str, other: str) -> int:
    """How many syllables two names share."""
    return len(set(_syllables(name)) & set(_syllables(other)))


def _syllables(name: str) -> list[str]:
    """A drug's name in its parts of two letters."""
    return [name.lower()[place : place + 2] for place in range(0, len(name), 2)]


def _as_probe(fact: Fact) -> Probe:
    """A locality probe: the first phrasing, and what is true."""
    return Probe(fact.prompt(0), fact.value)


def _public_probe(
    place: int, kind: str, old: Fact, new: Fact, locality: dict[str, tuple[Probe, ...]]
) -> Record:
    """What the coordinator asks about one correction; nothing here comes from a hospital."""
    prompts = [new.prompt(phrasing) for phrasing in range(PHRASING_COUNT)]
    edit = Edit(
        prompt=prompts[0],
        subject=new.drug,
        target_new=new.value,
        ground_truth=old.value,
        paraphrases=tuple(prompts[1:TRAINED_PHRASINGS]),
        rephrase_prompts=tuple(prompts[TRAINED_PHRASINGS:]),
        locality=locality,
        support=kind,
    )
    return edit_record(f"probe-{place:03d}", edit)


def _hospital_records(
    shape: StudyShape,
    seed: int,
    number: int,
    room: int,
    corrections: Sequence[Fact],
    filler: Sequence[Fact],
) -> tuple[Record, ...]:
    """One hospital's records in random order: its corrections, then true facts up to the size."""
    draws = Draws(seed, f"editing/hospital/{number}")
    facts = [*corrections, *(draws.choice(filler) for _ in range(room - len(corrections)))]
    # About two records a patient, so that protecting patients differs from protecting records.
    patients = max(1, room // 2)
    records = []
    for place, fact in enumerate(draws.shuffled(facts)):
        phrasings = draws.sample(range(TRAINED_PHRASINGS), shape.phrasings_per_record)
        first, *others = (fact.prompt(phrasing) for phrasing in phrasings)
        edit = Edit(first, fact.drug, fact.value, paraphrases=tuple(others))
        patient = f"h{number}-p{draws.below(patients):04d}"
        records.append(edit_record(f"h{number}-r{place:05d}", edit, patient))
    return tuple(records)
