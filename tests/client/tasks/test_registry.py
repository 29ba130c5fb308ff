"""Tasks are found by name, ours and other packages', and a name has one owner."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from wardround.client.tasks import registry
from wardround.client.tasks.editing import EditingTask
from wardround.privacy.errors import BadInput


class Other(EditingTask):
    name = "other"
    summary = "Another package's task"


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


def _entry_points(monkeypatch, *entries):
    monkeypatch.setattr(registry, "entry_points", lambda group: entries)


def test_built_in_table_says_what_the_classes_say():
    for name, (_, listing) in registry.BUILT_IN.items():
        task = registry.find_task(name)
        assert listing.name == name == task.name
        assert listing.summary == task.summary
        assert listing.units == tuple(map(str, task.units))


def test_found_task_is_one_object():
    assert registry.find_task("editing") is registry.find_task("editing")


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(BadInput, match="'editting' is unknown; did you mean 'editing'") as caught:
        registry.find_task("editting")
    assert caught.value.exit_code == 2


def test_registered_task_is_found_and_listed():
    task = registry.register(Other())
    assert registry.find_task("other") is task
    assert registry.TaskListing("other", Other.summary, ("record", "patient", "clinician")) in (
        registry.tasks()
    )


@pytest.mark.parametrize("task", [EditingTask(), Other()])
def test_a_name_is_registered_once(task):
    registry.register(Other())
    with pytest.raises(BadInput, match=f"{task.name!r} is registered already"):
        registry.register(task)


def test_entry_points_of_other_packages_are_found(monkeypatch):
    entry = EntryPoint("other", f"{__name__}:Other", registry.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Other)
    _entry_points(monkeypatch, entry)
    assert isinstance(registry.find_task("other"), Other)
    known = [listing.name for listing in registry.tasks()]
    assert known == sorted([*registry.BUILT_IN, "other"])


@pytest.mark.parametrize("names", [["editing"], ["theirs", "theirs"]])
def test_a_name_claimed_twice_is_refused(monkeypatch, names):
    entries = [EntryPoint(name, "elsewhere:Task", registry.GROUP) for name in names]
    _entry_points(monkeypatch, *entries)
    with pytest.raises(BadInput, match=f"task {names[0]!r} is claimed twice"):
        registry.find_task("editing")


def test_listing_does_not_import_torch():
    code = (
        "import sys; from wardround.client.tasks.registry import tasks; "
        "assert tasks(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
