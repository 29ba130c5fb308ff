"""Files of pictures: what is read and what is refused; and pictures as the encoder gets them."""

from __future__ import annotations

import base64
import json

import pytest
import torch

from wardround.client.tasks.cocoop.config import CocoopConfig
from wardround.client.tasks.cocoop.dealing import as_png, deal_public
from wardround.client.tasks.cocoop.formats import (
    TEST,
    picture_record,
    read_pictures,
    split_names,
    write_pictures,
)
from wardround.client.tasks.cocoop.images import Normalisation, check_picture, decode, random_crop
from wardround.privacy import Unit
from wardround.privacy.errors import BadInput

PNG = as_png(torch.linspace(0, 1, 3 * 8 * 8).view(3, 8, 8))
OTHER = as_png(torch.zeros(3, 8, 8))
DATA = base64.b64encode(PNG).decode()


@pytest.fixture
def split(tmp_path):
    """CoOp's format: six names of three training pictures and two test ones, under images/."""
    parts = {"train": [], "val": [], "test": []}
    for label in range(6):
        for number in range(5):
            file = tmp_path / "images" / f"class_{label}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(as_png(torch.full((3, 8, 8), (label * 5 + number) / 30)))
            entry = [f"class_{label}/{number}.png", label, f"class_{label}"]
            parts["train" if number < 3 else "test"].append(entry)
    path = tmp_path / "split_zhou_Test.json"
    path.write_text(json.dumps(parts))
    return path


NAMES = tuple(f"class {label}" for label in range(6))


def test_lines_come_back_as_they_were(tmp_path, pictures, names):
    records = [picture_record(f"r{n}", p, f"p{n // 2}") for n, p in enumerate(pictures)]
    path = tmp_path / "pictures.jsonl"
    write_pictures(records, path)
    assert read_pictures(path, names) == records


def test_a_line_may_name_a_file_beside_it(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.png").write_bytes(PNG)
    path = tmp_path / "here.jsonl"
    path.write_text('{"name": "a_b", "image": "scans/a.png", "patient": "p"}\n')
    (record,) = read_pictures(path, ["a b"])
    assert record.id == "here-000001"
    assert record.owners == {Unit.RECORD: record.id, Unit.PATIENT: "p"}
    assert record.content.data == b""
    assert record.content.read() == PNG
    (tmp_path / "scans" / "a.png").unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        record.content.read()


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ("[]", "not a JSON object"),
        ('{"nmae": "secret"}', "unknown field; did you mean 'name'"),
        ('{"name": "a"}', "either data or image"),
        (f'{{"name": "a", "data": "{DATA}", "image": "x.png"}}', "either data or image"),
        ('{"name": "a", "data": "secret!"}', "not base64"),
        ('{"name": "a", "data": "c2VjcmV0"}', "not a picture"),
        ('{"name": "a", "image": "secret.png"}', "cannot be read"),
        (f'{{"name": "secret", "data": "{DATA}"}}', "none of \\[task\\] names"),
        (f'{{"name": 7, "data": "{DATA}"}}', "name must be a text"),
        (f'{{"id": "one", "name": "a", "data": "{DATA}"}}', "occurs before, on line 1"),
        (f'{{"name": "a", "data": "{DATA}", "patient": "secret"}}', "on all lines or on none"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_not_repeated(tmp_path, second, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"id": "one", "name": "a", "data": "{DATA}"}}\n{second}\n')
    with pytest.raises(BadInput, match=message) as caught:
        read_pictures(path, ["a"])
    assert f"{path}:2" in str(caught.value)
    assert "secret" not in str(caught.value).replace("secret.png", "")


def test_folders_are_names(split):
    folder = split.parent / "images"
    assert split_names(folder) == list(NAMES)
    records = read_pictures(folder, NAMES)
    assert len(records) == 30
    assert records[0].id == "class_0/0.png"
    with pytest.raises(BadInput, match="none of"):
        read_pictures(folder, NAMES[:5])
    (split.parent / "empty").mkdir()
    with pytest.raises(BadInput, match="holds no pictures"):
        read_pictures(split.parent / "empty", NAMES)


def test_splits_keep_their_parts_and_labels(split):
    assert split_names(split) == list(NAMES)
    assert len(read_pictures(split, NAMES)) == 18
    assert len(read_pictures(split, NAMES, TEST)) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts["train"].append(["a.png", "0", "x"]), r"train\[18\]: expected"),
        (lambda parts: parts["train"].append(["a.png", 0, "x"]), "another name before"),
        (lambda parts: parts["train"].append(["no.png", 0, "class_0"]), "its picture is not at"),
        (lambda parts: parts.update(train=3), "expected an object with lists"),
    ],
)
def test_a_bad_split_is_refused(split, change, message):
    parts = json.loads(split.read_text())
    change(parts)
    split.write_text(json.dumps(parts))

    def read():
        return split_names(split), read_pictures(split, NAMES)

    with pytest.raises(BadInput, match=message):
        read()


def test_a_file_that_is_no_split_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(BadInput, match="not a split"):
        split_names(path)
    with pytest.raises(BadInput, match="no such file"):
        split_names(tmp_path / "no.json")


@pytest.mark.parametrize("folder", [False, True])
def test_public_pictures_are_dealt_once(split, folder):
    source = split.parent / "images" if folder else split
    config = CocoopConfig(names=NAMES, shots=1, probes_per_name=2)
    share = deal_public(source, config, 2, 0)
    dealt = [record.id for records in share.hospitals for record in records]
    held = [record.id for record in share.probes]
    assert len(set(dealt)) == len(dealt) == 6
    assert not set(dealt) & set(held)
    assert {record.content.name for record in share.probes} == set(NAMES)
    assert {r.content.name for records in share.hospitals for r in records} == set(config.base)
    if not folder:
        assert all(int(name.rsplit("/", 1)[1][0]) >= 3 for name in held)


def test_other_names_are_told_and_too_few_pictures_refused(split):
    with pytest.raises(BadInput, match="'class 5'"):
        deal_public(split, CocoopConfig(names=("class 0", "class 1")), 2, 0)
    with pytest.raises(BadInput, match="too few pictures for 4 hospitals"):
        deal_public(split, CocoopConfig(names=NAMES), 4, 0)


def test_pixels_come_through_unchanged_at_their_own_size():
    wanted = (torch.linspace(0, 1, 192).view(3, 8, 8) * 255).round() / 255
    torch.testing.assert_close(decode(PNG, 8), wanted)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    found = Normalisation().apply(mean.expand(3, 8, 8))
    torch.testing.assert_close(found, torch.zeros(3, 8, 8))


def test_the_middle_square_is_looked_at():
    """A picture twice as wide as high, black but for its middle: only that is left."""
    wide = torch.zeros(3, 8, 16)
    wide[:, :, 4:12] = 1.0
    assert bool((decode(as_png(wide), 8) == 1).all())


def test_views_are_crops_that_repeat():
    one, again, two = (decode(PNG, 8, view) for view in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    for view in range(1, 50):
        crop = random_crop(PNG, view)
        assert 0 <= crop.left <= crop.left + crop.width <= 1 + 1e-12
        assert 0 <= crop.top <= crop.top + crop.height <= 1 + 1e-12
        assert crop.width * crop.height >= 0.08 * 0.99
    assert {random_crop(PNG, view).mirrored for view in range(1, 50)} == {True, False}
    assert random_crop(PNG, 1) != random_crop(OTHER, 1)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match="not a picture"):
        check_picture(b"GIF89a")
    check_picture(PNG)
    with pytest.raises(ValueError, match="cannot be decoded"):
        decode(PNG[:60], 8)
