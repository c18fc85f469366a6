"""A data set appears below the data root whole and checked, or not at all. The servers and archives are made here."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import layouts
import pytest
from serve import Behaviour, serving

from fewshot.__main__ import main
from fewshot.data import catalogue, load_dataset
from fewshot.data.benchmarks import sha256
from fewshot.data.catalogue import Download, entry, keys
from fewshot.data.check import check
from fewshot.data.fetch import fetch
from fewshot.data.splits import PARTS
from fewshot.errors import FewshotError

FAST = dict(timeout=(2, 0.5), tries=2, wait=0.0)

V2 = "imagenetv2-matched-frequency-format-val"
# What the official archives hold: {archive: {folder or file of the installed data set: its name in the archive}}.
ARCHIVES = {
    "oxford_pets": {"images.tar.gz": {"images": "images"}, "annotations.tar.gz": {"annotations": "annotations"}},
    "stanford_cars": {"cars_train.tgz": {"cars_train": "cars_train"}, "cars_test.tgz": {"cars_test": "cars_test"}},
    "oxford_flowers": {"102flowers.tgz": {"jpg": "jpg"}},
    "food101": {"food-101.tar.gz": {".": "food-101"}},
    "fgvc_aircraft": {"fgvc-aircraft-2013b.tar.gz": {".": "fgvc-aircraft-2013b/data"}},
    "sun397": {"SUN397.tar.gz": {"SUN397": "SUN397"}},
    "dtd": {"dtd-r1.0.1.tar.gz": {".": "dtd"}},
    "eurosat": {"EuroSAT.zip": {"2750": "2750"}},
    "ucf101": {"UCF-101-midframes.zip": {"UCF-101-midframes": "UCF-101-midframes"}},
    "cub": {"CUB_200_2011.tgz": {"CUB_200_2011": "CUB_200_2011"}},
    "imagenet_v2": {"imagenetv2-matched-frequency.tar.gz": {V2: V2}},
    "imagenet_sketch": {"ImageNet-Sketch.zip": {"images": "sketch"}},
    "imagenet_a": {"imagenet-a.tar": {"imagenet-a": "imagenet-a"}},
    "imagenet_r": {"imagenet-r.tar": {"imagenet-r": "imagenet-r"}},
    "grocery": {"GroceryStoreDataset.zip": {".": "GroceryStoreDataset-master/dataset"}},
    "caltech101": {"101_ObjectCategories.tar.gz": {"101_ObjectCategories": "101_ObjectCategories"}},
}  # fmt: skip


def pack(archive: Path, folder: Path, members: dict[str, str]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    files = [(path, f"{name}/{path.relative_to(folder / source)}".replace("/./", "/"))
             for source, name in members.items() for path in sorted((folder / source).rglob("*")) if path.is_file()]  # fmt: skip
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as bundle:
            for path, name in files:
                bundle.write(path, name)
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix in (".gz", ".tgz") else "w", dereference=True) as bundle:
            for path, name in files:
                bundle.add(path, name)
    return archive


class World:
    """A server with the official files of small data sets, a catalogue that says so, and an empty data root."""

    def __init__(self, tmp_path: Path, server, monkeypatch):
        self.tmp, self.server, self.patch = tmp_path, server, monkeypatch
        self.root, self.files = tmp_path / "data", tmp_path / "files"
        self.rows: dict[str, layouts.Rows] = {}
        self.changed: dict[str, catalogue.Entry] = {}
        real = catalogue._entry
        monkeypatch.setattr(catalogue, "_entry", lambda key: self.changed.get(key) or real(key))
        monkeypatch.setenv("FEWSHOT_DATA", str(self.root))
        monkeypatch.delenv("FEWSHOT_SPLITS", raising=False)

    def publish(self, key: str, more: int = 0) -> catalogue.Entry:
        """Pack a small copy of the data set as its owner does, with `more` bytes in it, and put it on the server."""
        one, rows = entry(key), layouts.small(key)
        made = layouts.write(one, self.tmp / "made", rows, layouts.Painter(self.tmp / "painter" / key))
        (made / one.layouts[0].images / "more").write_bytes(os.urandom(more))
        (made / "annotations").mkdir(exist_ok=True)
        (made / "annotations" / "list.txt").write_text("a list")
        packed = {name: pack(self.files / name, made, members) for name, members in ARCHIVES[key].items()}
        if key == "caltech101":
            inner = packed.pop("101_ObjectCategories.tar.gz")
            with zipfile.ZipFile(self.files / "caltech-101.zip", "w") as bundle:
                bundle.write(inner, "caltech-101/101_ObjectCategories.tar.gz")
            packed["caltech-101.zip"] = self.files / "caltech-101.zip"
            one = replace(
                one, archives=(replace(one.archives[0], inner=replace(one.archives[0].inner, sha256=sha256(inner))),)
            )
        if key == "oxford_flowers":
            packed["imagelabels.mat"] = self.files / "imagelabels.mat"
            packed["imagelabels.mat"].write_bytes(b"MATLAB")
        sizes = {part: len(rows[part]) for part in PARTS}
        archives = tuple(self.official(file, packed[file.file]) for file in one.archives if file.file in packed)
        split = one.split
        if one.reader == "split":
            file = self.files / one.split.file
            file.write_bytes((made / one.split.file).read_bytes())
            split = replace(self.official(one.split, file), addresses=(self.serve(file),))
            if not one.split.sha256:
                split = replace(split, sha256=None, bytes=None)
        if key == "cub":
            from fewshot.data.benchmarks import cub_split, split_text

            lists = made / "CUB_200_2011"
            text = split_text(cub_split(lists)).encode()
            (self.tmp / "split").write_bytes(text)
            split = replace(one.split, sha256=sha256(self.tmp / "split"))
        self.rows[key] = rows
        self.changed[key] = replace(one, sizes=sizes, archives=archives, split=split)
        return self.changed[key]

    def official(self, file: Download, path: Path) -> Download:
        """The catalogue's line for a file, with the hash of this one; on the server if the real one is on any."""
        addresses = (self.serve(path),) if file.addresses else ()
        known = {"sha256": sha256(path), "md5": None} if file.known_hash else {}
        return replace(file, bytes=path.stat().st_size, about=None, addresses=addresses, **known)

    def serve(self, path: Path, **how) -> str:
        self.server[f"/{path.name}"] = Behaviour(path.read_bytes(), **how)
        return self.server.url(f"/{path.name}")

    def change(self, key: str, **changes) -> None:
        self.changed[key] = replace(self.changed[key], **changes)

    def folder(self, key: str) -> Path:
        return self.root / entry(key).layouts[0].folder

    def nothing_installed(self) -> bool:
        return not self.root.exists() or set(os.listdir(self.root)) <= {".fetch"}

    def refused(self, key: str, **how) -> str:
        before = snapshot(self.root)
        with pytest.raises(FewshotError) as caught:
            fetch(key, **FAST, **how)
        assert snapshot(self.root) == before, "a failed fetch changed the data root"
        assert not list((self.root / ".fetch").glob("*/stage")), "half a data set was left behind"
        assert "\n" not in str(caught.value)
        return str(caught.value)


def snapshot(root: Path) -> set[str]:
    """What is below the data root, without the workshop."""
    paths = root.rglob("*") if root.exists() else ()
    return {str(path.relative_to(root)) for path in paths if path.relative_to(root).parts[0] != ".fetch"}


@pytest.fixture
def world(tmp_path, monkeypatch):
    with serving() as server:
        yield World(tmp_path, server, monkeypatch)


def installed(world, key) -> bool:
    dataset, rows = load_dataset(key), world.rows[key]
    return check(key).ok and all(
        list(getattr(dataset, part).ids) == [path for path, _, _ in rows[part]] for part in PARTS
    )


# -- every data set, from the archive of its owner to the folders that are read


@pytest.mark.parametrize("key", [key for key in keys() if key in ARCHIVES and entry(key).get == "download"])
def test_fetch_installs_what_the_official_files_hold(world, key):
    world.publish(key)
    state = fetch(key, **FAST)
    assert state.ok and state.place.folder == world.folder(key) and installed(world, key)
    assert set(os.listdir(world.root)) == {".fetch", world.folder(key).name}
    assert os.listdir(world.root / ".fetch") == [f"{key}.lock"] or not os.listdir(world.root / ".fetch")
    asked = len(world.server.asked)
    assert fetch(key, **FAST) == state and len(world.server.asked) == asked  # nothing is left to do


@pytest.mark.parametrize("key", ["stanford_cars", "sun397"])
def test_what_cannot_be_downloaded_is_taken_from_a_folder(world, key):
    one = world.publish(key)
    sentence = world.refused(key)
    assert (
        f"{one.archives[0].file}" in sentence
        and f"`fewshot data fetch {key} --from FOLDER` goes on with it" in sentence
    )
    assert fetch(key, source=world.files, **FAST).ok and installed(world, key)
    assert [path for path, _, _ in world.server.asked if "split" not in path] == []


def test_imagenet_is_sorted_by_torchvision(world, monkeypatch):
    import numpy as np
    from scipy.io import savemat
    from torchvision.datasets import imagenet

    one = entry("imagenet")
    painter = layouts.Painter(world.tmp / "painter")
    painter(world.tmp / "p" / "x.JPEG")
    picture = (world.tmp / "p" / "x.JPEG").read_bytes()
    world.files.mkdir()

    def archive(name, members, mode="w"):
        with tarfile.open(world.files / name, mode) as bundle:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                bundle.addfile(info, io.BytesIO(content))
        return world.files / name

    def inner(wnid):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as bundle:
            info = tarfile.TarInfo(f"{wnid}_1.JPEG")
            info.size = len(picture)
            bundle.addfile(info, io.BytesIO(picture))
        return stream.getvalue()

    archive("ILSVRC2012_img_train.tar", [(f"{wnid}.tar", inner(wnid)) for wnid in one.folders])
    shuffled = [one.folders[i * 7 % 1000] for i in range(1000)]  # the class of validation picture i
    archive("ILSVRC2012_img_val.tar", [(f"ILSVRC2012_val_{i + 1:08d}.JPEG", picture) for i in range(1000)])
    kinds = [
        ("ILSVRC2012_ID", object),
        ("WNID", object),
        ("words", object),
        ("gloss", object),
        ("num_children", object),
    ]
    table = np.array([(i + 1, wnid, "a, b", "-", 0) for i, wnid in enumerate(one.folders)], dtype=kinds)
    savemat(world.tmp / "meta.mat", {"synsets": table})
    truth = "".join(f"{one.folders.index(wnid) + 1}\n" for wnid in shuffled)
    devkit = [("data/meta.mat", (world.tmp / "meta.mat").read_bytes()),
              ("data/ILSVRC2012_validation_ground_truth.txt", truth.encode())]  # fmt: skip
    archive("ILSVRC2012_devkit_t12.tar.gz", [(f"ILSVRC2012_devkit_t12/{name}", text) for name, text in devkit], "w:gz")

    assert "ILSVRC2012_img_train.tar" in world.refused("imagenet")
    assert "torchvision cannot sort these files" in world.refused("imagenet", source=world.files)  # not the real ones
    import hashlib

    meta = {part: (name, hashlib.md5((world.files / name).read_bytes()).hexdigest())
            for part, (name, _) in imagenet.ARCHIVE_META.items()}  # fmt: skip
    monkeypatch.setattr(imagenet, "ARCHIVE_META", meta)
    world.changed["imagenet"] = replace(one, sizes={"train": 1000, "val": 1000, "test": 1000})
    assert fetch("imagenet", source=world.files, **FAST).ok
    dataset = load_dataset("imagenet")
    assert dataset.train.ids[0] == "train/n01440764/n01440764_1.JPEG"
    of = {path.rpartition("_")[2]: label for path, label in zip(dataset.test.ids, dataset.test.labels.tolist())}
    assert of == {f"{i + 1:08d}.JPEG": one.folders.index(wnid) for i, wnid in enumerate(shuffled)}
    assert set(os.listdir(world.folder("imagenet") / "images")) == {"train", "val"}
    assert all((world.files / name).is_file() for name, _ in meta.values())  # the user's files are left alone


# -- stopped, and gone on with


def test_an_interrupted_download_goes_on_at_the_next_call(world):
    world.publish("eurosat", 400_000)
    content = (world.files / "EuroSAT.zip").read_bytes()
    world.server["/EuroSAT.zip"] = Behaviour(content, cut=[len(content) // 2, 0, 0])
    assert "the connection broke after" in world.refused("eurosat")
    world.server.asked.clear()
    assert fetch("eurosat", **FAST).ok and installed(world, "eurosat")
    assert world.server.asked[0][1].startswith("bytes=")


def test_downloads_that_are_complete_are_not_repeated_when_a_later_one_fails(world):
    world.publish("oxford_pets")
    world.server["/annotations.tar.gz"] = Behaviour(status=404)
    assert "annotations.tar.gz: 404 Not Found" in world.refused("oxford_pets")
    world.serve(world.files / "annotations.tar.gz")
    world.server.asked.clear()
    assert fetch("oxford_pets", **FAST).ok
    assert [path for path, _, _ in world.server.asked] == ["/annotations.tar.gz", "/split_zhou_OxfordPets.json"]


@pytest.mark.parametrize(
    "when", ["fewshot.data.fetch.unpack", "fewshot.data.fetch.os.rename", "fewshot.data.fetch.check"]
)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_whatever_happens_on_the_way_leaves_nothing_half_done(world, monkeypatch, when, error):
    world.publish("dtd")
    real, calls = fetch.__globals__["check"], []

    def fail(*arguments, **named):
        calls.append(arguments)
        if when.endswith("check") and len(calls) == 1:  # the first look, before anything begins
            return real(*arguments, **named)
        raise error

    monkeypatch.setattr(when, fail)
    with pytest.raises((KeyboardInterrupt, FewshotError, OSError)) as caught:
        fetch("dtd", **FAST)
    assert world.nothing_installed() and not list((world.root / ".fetch").glob("*/stage"))
    if not isinstance(error, KeyboardInterrupt):
        assert "No space left on device" in str(caught.value) and isinstance(caught.value, FewshotError)


def test_what_a_killed_process_left_behind_is_cleared_away(world):
    world.publish("dtd")
    left = world.root / ".fetch" / "dtd" / "stage" / "dtd" / "images"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"half")
    assert fetch("dtd", **FAST).ok and not (world.folder("dtd") / "images" / "half.jpg").exists()


def test_two_processes_do_not_fetch_the_same(world):
    from filelock import FileLock

    world.publish("dtd")
    (world.root / ".fetch").mkdir(parents=True)
    with FileLock(world.root / ".fetch" / "dtd.lock"):
        result = []
        thread = threading.Thread(target=lambda: result.append(world.refused("dtd")))
        thread.start()
        thread.join()
    assert result and "another process is fetching dtd" in result[0]
    assert fetch("dtd", **FAST).ok


def test_keep_leaves_the_archives(world):
    world.publish("dtd")
    fetch("dtd", keep=True, **FAST)
    assert (world.root / ".fetch" / "dtd" / "dtd-r1.0.1.tar.gz").is_file()


# -- archives that are not what they should be


def test_an_archive_with_another_hash_is_not_unpacked(world):
    world.publish("dtd")
    content = (world.files / "dtd-r1.0.1.tar.gz").read_bytes()
    world.server["/dtd-r1.0.1.tar.gz"] = Behaviour(content[:-9] + b"x" + content[-8:])
    assert "its content has changed or was damaged (another sha256)" in world.refused("dtd")
    assert world.nothing_installed()


@pytest.mark.parametrize("evil", ["../evil.txt", "/tmp/evil.txt", "link"])
def test_an_archive_that_reaches_outside_installs_nothing(world, evil):
    world.publish("dtd")
    path = world.files / "dtd-r1.0.1.tar.gz"
    with tarfile.open(path, "w:gz") as bundle:
        info = tarfile.TarInfo(evil)
        if evil == "link":
            info.type, info.linkname = tarfile.SYMTYPE, "../../../../secret"
        bundle.addfile(info)
    world.change("dtd", archives=(world.official(entry("dtd").archives[0], path),))
    assert "tries to write outside of its folder" in world.refused("dtd")
    assert world.nothing_installed()


def test_an_archive_without_its_folder_or_with_pictures_missing_installs_nothing(world):
    world.publish("dtd")
    path, made = world.files / "dtd-r1.0.1.tar.gz", world.tmp / "made" / "dtd"
    pack(path, made, {".": "texture"})
    world.change("dtd", archives=(world.official(entry("dtd").archives[0], path),))
    assert "does not hold the folder dtd" in world.refused("dtd")
    pack(path, made, {"images/banded": "dtd/banded"})
    world.change("dtd", archives=(world.official(entry("dtd").archives[0], path),))
    assert "what was unpacked is not Describable Textures (DTD): it has no folder images" in world.refused("dtd")
    next((made / "images" / "banded").iterdir()).unlink()
    pack(path, made, {".": "dtd"})
    world.change("dtd", archives=(world.official(entry("dtd").archives[0], path),))
    sentence = world.refused("dtd")
    assert "what was unpacked is not Describable Textures (DTD): 1 of 141 pictures of dtd are missing" in sentence
    assert str(world.root) not in sentence  # not a path that is gone by now


def test_an_archive_of_unknown_hash_is_not_kept_when_it_is_no_good(world):
    """Otherwise the next call would find it and fail again."""
    one = world.publish("fgvc_aircraft")
    assert one.archives[0].sha256 is None
    world.change("fgvc_aircraft", archives=(replace(one.archives[0], bytes=None),))
    path = world.files / one.archives[0].file
    for content in (b"busy, come back later", path.read_bytes()[:-300]):
        world.server[f"/{path.name}"] = Behaviour(content, length=False)
        assert "neither a zip nor a tar" in (sentence := world.refused("fgvc_aircraft")) or "is damaged" in sentence
    world.serve(path)
    assert fetch("fgvc_aircraft", **FAST).ok


def test_an_inner_archive_is_checked_too(world):
    one = world.publish("caltech101")
    other = replace(one.archives[0], inner=replace(one.archives[0].inner, sha256="0" * 64))
    world.change("caltech101", archives=(other,))
    assert "is not the official 101_ObjectCategories.tar.gz" in world.refused("caltech101")


# -- the split file


def test_only_the_split_file_is_fetched_where_the_pictures_are(world):
    one = world.publish("oxford_pets")
    layouts.write(one, world.root, world.rows["oxford_pets"], layouts.Painter(world.tmp / "more"), one.layouts[1])
    folder = world.root / "oxford-iiit-pet"
    (folder / one.split.file).unlink()
    assert fetch("oxford_pets", **FAST).place.folder == folder and installed(world, "oxford_pets")
    assert [path for path, _, _ in world.server.asked] == ["/split_zhou_OxfordPets.json"]


def test_the_split_file_may_come_from_a_path(world):
    one = world.publish("oxford_pets")
    for source in (world.files, world.files / one.split.file):
        folder = layouts.write(one, world.root, world.rows["oxford_pets"], layouts.Painter(world.tmp / source.name))
        (folder / one.split.file).unlink()
        assert fetch("oxford_pets", source=source, **FAST).ok
        assert world.server.asked == []
        import shutil

        shutil.rmtree(folder)


def test_a_split_file_alone_is_used_with_the_downloads(world):
    one = world.publish("dtd")
    (world.tmp / "mine").mkdir()
    (world.files / one.split.file).rename(world.tmp / "mine" / one.split.file)
    assert fetch("dtd", source=world.tmp / "mine", **FAST).ok
    assert [path for path, _, _ in world.server.asked] == ["/dtd-r1.0.1.tar.gz"]


def test_a_copy_with_another_split_file_gets_the_right_one(world):
    """CoOp's code leaves a split of its own where it found none, and copies carry it on."""
    one = world.publish("ucf101")
    made = world.tmp / "made" / "ucf101"
    (made / one.split.file).write_text(json.dumps({part: [] for part in PARTS}))
    archive = pack(world.tmp / "ucf101.zip", made.parent, {"ucf101": "ucf101"})
    assert fetch("ucf101", source=archive, **FAST).ok and installed(world, "ucf101")


def test_a_wrong_split_file_is_not_put_beside_the_pictures(world):
    one = world.publish("food101")
    folder = layouts.write(one, world.root, world.rows["food101"], layouts.Painter(world.tmp / "more"))
    (folder / one.split.file).unlink()
    split = {part: [(path, label, name + "s") for path, label, name in world.rows["food101"][part]] for part in PARTS}
    world.server[f"/{one.split.file}"] = Behaviour(json.dumps(split).encode())
    assert "class 0 called 'apple_pies', not 'apple_pie'" in world.refused("food101")
    world.server[f"/{one.split.file}"] = Behaviour(b"<html>quota", type="text/html")
    assert "a web page came instead of the file" in world.refused("food101")
    world.serve(world.files / one.split.file)
    assert fetch("food101", **FAST).ok


def test_a_wrong_split_file_that_is_there_is_left_alone(world):
    one = world.publish("oxford_pets")
    folder = layouts.write(one, world.root, world.rows["oxford_pets"], layouts.Painter(world.tmp / "more"))
    (folder / one.split.file).write_text("{}")
    sentence = world.refused("oxford_pets")
    assert "is there but not complete" in sentence and "is not the split file that the papers used" in sentence
    assert (folder / one.split.file).read_text() == "{}"


# -- folders that are in the way, disks that are full


def test_a_half_filled_folder_is_never_written_over(world):
    world.publish("dtd")
    (world.folder("dtd") / "images" / "banded").mkdir(parents=True)
    assert "is there but not complete (141 pictures of dtd are missing, the first is banded/" in world.refused("dtd")
    (world.folder("dtd") / "images" / "banded").rmdir()
    (world.folder("dtd") / "images").rmdir()
    assert fetch("dtd", **FAST).ok  # an empty folder is as good as none


def test_nothing_starts_that_does_not_fit(world, monkeypatch):
    one = world.publish("dtd")
    world.change("dtd", archives=(replace(one.archives[0], bytes=4_000_000_000),))
    monkeypatch.setattr("fewshot.data.fetch.shutil.disk_usage", lambda _: type("Usage", (), {"free": 5_000_000_000})())
    assert "dtd needs about 8.4 GB" in world.refused("dtd") and world.server.asked == []


def test_a_data_root_that_is_a_file(world):
    world.publish("dtd")
    world.root.write_text("not a folder")
    with pytest.raises(FewshotError, match="cannot be written to .*; name another folder with --root"):
        fetch("dtd", **FAST)


# -- copies that others made


def test_a_copy_in_other_folders_is_installed_from_its_archive(world):
    one = world.publish("stanford_cars")
    for layout in one.layouts:
        made = layouts.write(
            one,
            world.tmp / layout.of,
            world.rows["stanford_cars"],
            layouts.Painter(world.tmp / "p" / layout.of),
            layout,
        )
        (made / one.split.file).unlink()
        archive = pack(world.tmp / f"archive {len(layout.of)}.zip", made, {".": "."})
        assert fetch("stanford_cars", source=archive, **FAST).ok, layout
        assert installed(world, "stanford_cars")
        import shutil

        shutil.rmtree(world.folder("stanford_cars"))


def test_a_copy_in_coops_folders_brings_its_split_file(world):
    one = world.publish("ucf101")
    made = world.tmp / "made" / "ucf101"
    archive = pack(world.tmp / "ucf101.zip", made.parent, {"ucf101": "data/ucf101"})
    assert fetch("ucf101", source=archive, **FAST).ok and world.server.asked == []
    assert (world.folder("ucf101") / one.split.file).is_file()


def test_an_archive_of_something_else_is_refused(world):
    world.publish("stanford_cars")
    archive = pack(world.tmp / "other.zip", world.tmp / "made" / "stanford_cars", {"cars_train": "holiday"})
    assert "holds none of the folders in which Stanford Cars is known" in world.refused("stanford_cars", source=archive)


def test_files_given_are_checked_by_hash_and_never_changed(world):
    world.publish("dtd")
    archive = world.files / "dtd-r1.0.1.tar.gz"
    content = archive.read_bytes()
    archive.write_bytes(content + b"\0")
    assert "is not the official dtd-r1.0.1.tar.gz: its sha256 begins with" in world.refused("dtd", source=world.files)
    archive.rename(world.files / "dtd-r1.0.1 (1).tar.gz")
    (world.files / "dtd-r1.0.1 (1).tar.gz").write_bytes(content)
    assert "holds none of dtd-r1.0.1.tar.gz" in world.refused("dtd", source=world.tmp / "made")
    assert "there is no file or folder" in world.refused("dtd", source=world.tmp / "nowhere")


def test_a_browsers_second_copy_has_another_name(world):
    world.publish("eurosat")
    (world.files / "EuroSAT.zip").rename(world.files / "EuroSAT (1).zip")
    assert fetch("eurosat", source=world.files, **FAST).ok
    assert [path for path, _, _ in world.server.asked] == []
    assert (world.files / "EuroSAT (1).zip").is_file()


# -- the command


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["data", *arguments])
    return (code, *capsys.readouterr())


def test_the_commands_on_an_empty_disk(world, capsys):
    code, out, _ = run(capsys, "list")
    lines = out.splitlines()
    assert code == 0 and [line.split()[0] for line in lines[3:]] == list(keys())
    assert f"data below {world.root}" in out and out.count("not here") == 17 and max(map(len, lines)) <= 160
    code, out, _ = run(capsys, "check")
    assert code == 0 and out.count("not here") == 17
    code, out, err = run(capsys, "check", "dtd")
    assert (
        (code, out) == (2, "")
        and err.startswith("fewshot: dtd is not on this disk (looked in ")
        and err.count("\n") == 1
    )


def test_listing_and_checking_need_no_torch(tmp_path):
    code = (
        "import sys\nfrom fewshot.__main__ import main\nmain(['data', 'list'])\nmain(['data', 'check'])\n"
        "assert not {'torch', 'open_clip', 'pandas'} & set(sys.modules)"
    )
    environment = {**os.environ, "FEWSHOT_DATA": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("key", keys())
def test_the_page_of_a_data_set_names_everything(world, capsys, key):
    one = entry(key)
    code, out, _ = run(capsys, "list", key)
    assert code == 0 and one.title in out and one.licence in out and one.home in out
    for file in (*one.archives, *([one.split] if one.split else [])):
        assert file.file in out and all(address in out for address in file.addresses)
        assert all(f"{address} [" in out for _, address in file.others)
    assert all(step in out for step in one.steps) and all(at in out for at, _ in one.elsewhere)
    assert all(layout.folder.strip(".") in out and layout.of in out for layout in one.layouts)


def test_fetch_and_check_from_the_command_line(world, capsys):
    world.publish("dtd")
    code, out, err = run(capsys, "fetch", "describable_textures", "--root", str(world.root))
    assert code == 0 and out.startswith("dtd is in ") and "47 classes, 47 train, 47 val and 47 test pictures." in out
    code, out, _ = run(capsys, "check", "dtd", "--pictures")
    assert code == 0 and out.startswith("dtd              found")
    next((world.folder("dtd") / "images" / "banded").iterdir()).unlink()
    code, out, err = run(capsys, "check")
    assert (
        code == 2
        and "1 of 141 pictures of dtd are missing" in err
        and err.count("\n") == 1
        and out.count("not here") == 16
    )
    assert " missing files " in run(capsys, "list")[1]


def test_what_to_do_by_hand_is_printed_before_the_sentence(world, capsys):
    code, out, err = run(capsys, "fetch", "cars")
    assert code == 2 and err.startswith("fewshot: cars_train.tgz and cars_test.tgz cannot be downloaded from here: ")
    assert all(step in out for step in entry("stanford_cars").steps) and err.count("\n") == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (("fetch", "oxford_pet"), "unknown data set 'oxford_pet'; did you mean 'oxford_pets'?"),
    (("list", "imagnet"), "unknown data set 'imagnet'; did you mean 'imagenet'?"),
    (("fetch", "dtd", "eurosat", "--from", "x"), "--from belongs to one data set"),
    (("fetch", "dtd", "--from", "no/such"), "there is no file or folder no/such"),
    (("export-split", "dtd", "--shots", "4"), "dtd is not on this disk"),
])  # fmt: skip
def test_mistakes_are_one_line_and_exit_2(world, capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
