"""Whatever is wrong with what is given: one sentence that names it and says what to do, and nothing half-written.

A table per entry point. A line holds a name, what is given, and the words that the answer must have: the thing and the remedy.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import fewshot
from fewshot.__main__ import main
from fewshot.data import export_split, from_arrays, from_csv, from_folder, import_split
from fewshot.errors import FewshotError
from fewshot.grids import grid
from fewshot.parameters import settings
from fewshot.rows import SCHEMA
from fewshot.runs import Run
from fewshot.weights import read_state_dict

ENVIRONMENT = ("FEWSHOT_DATA", "FEWSHOT_SPLITS", "OPENAI_API_KEY", "OPENAI_BASE_URL")


def one_sentence(text: str) -> bool:
    """One line that ends like a sentence, and no Python in it."""
    return bool(re.fullmatch(r"[^\n]*[.?)]", text)) and "Traceback" not in text and "Error:" not in text


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content; folders are None."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}  # fmt: skip


def table(*lines: tuple) -> pytest.MarkDecorator:
    """(name, what is given, words ...) as the cases of one test."""
    return pytest.mark.parametrize(("given", "words"), [pytest.param(g, w, id=n) for n, g, *w in lines])


def photo(seed: int = 0, size=(24, 20)) -> Image.Image:
    """Smooth colours, so that JPEG keeps them."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    rng = np.random.default_rng(seed)
    waves = [np.sin(3 * (a * x + b * y) + c) for a, b, c in rng.uniform(0, 2, (3, 3))]
    return Image.fromarray(np.uint8(np.stack([127 + 120 * w for w in waves], axis=-1)))


def class_folders(root: Path, names=("cat", "dog"), pictures: int = 4) -> Path:
    for label, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(pictures):
            photo(10 * label + i).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Path:
    """A folder with something of every kind that can be wrong. No test may change it."""
    here = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        _pictures(here)
        _rows(here)
        _models(here)
        _profiles(here)
        _notebooks(here)
        _texts(here)
        yield here


@pytest.fixture(autouse=True)
def here(bench, monkeypatch):
    """Every test runs in the folder, with nothing of the user's set."""
    monkeypatch.chdir(bench)
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FEWSHOT_RESULTS", "no_results")  # those of the project take seconds to read
    return bench


def _pictures(here: Path) -> None:
    class_folders(here / "photos")
    photo().save(here / "photo.png")
    (here / "empty.jpg").touch()
    (here / "words.png").write_text("no picture")
    photo(size=(64, 64)).save(here / "whole.jpg")
    (here / "half.jpg").write_bytes((here / "whole.jpg").read_bytes()[:700])
    Image.new("1", (20_000, 10_000)).save(here / "bomb.png")
    Image.new("L", (60_000, 1)).save(here / "thread.png")
    class_folders(here / "one_class", ["cat"])
    class_folders(here / "broken")
    (here / "broken" / "dog" / "x.jpg").touch()
    class_folders(here / "broken_line")
    (here / "broken_line" / "dog" / "new\nline.jpg").touch()
    class_folders(here / "hollow", ["cat"])
    (here / "hollow" / "dog").mkdir()
    class_folders(here / "phone", ["cat"])
    (here / "phone" / "dog").mkdir()
    (here / "phone" / "dog" / "a.heic").write_bytes(b"x")
    class_folders(here / "parts" / "train")
    class_folders(here / "parts" / "training")
    class_folders(here / "uneven" / "train")
    class_folders(here / "uneven" / "test", ["cat"])
    class_folders(here / "single", pictures=1)
    class_folders(here / "alike", ["red apple", "red_apple"])
    class_folders(here / "blank", [" ", "cat"])
    (here / "data" / ".fetch").mkdir(parents=True)
    (here / "data" / ".fetch" / "eurosat.lock").touch()  # what a fetch leaves on purpose
    class_folders(here / "deep")
    Image.new("I;16", (8, 8), 3000).save(here / "deep" / "dog" / "a.tif")
    (here / "list.csv").write_text("image,class\nphotos/cat/0.png,cat\nphotos/dog/0.png,dog\n")
    (here / "latin.csv").write_bytes("image,class\nphotos/cat/0.png,Kätzchen\n".encode("latin-1"))


def _row(**more) -> str:
    return json.dumps({"key": "0" * 16, "schema": SCHEMA, "accuracy": 50.0} | more) + "\n"


def _rows(here: Path) -> None:
    (here / "newer.jsonl").write_text(_row(schema=SCHEMA + 1))
    (here / "foreign.jsonl").write_text('{"loss": 0.5}\n')
    (here / "torn.jsonl").write_text('{"key": "1", "acc\n' + _row())
    (here / "bare.jsonl").write_text(_row())
    (here / "binary.jsonl").write_bytes(bytes(range(256)))
    (here / "results").mkdir()
    (here / "results" / "x-toy.jsonl").write_text('{"loss": 0.5}\n')


def _models(here: Path) -> None:
    from safetensors.torch import save_file

    clip = fewshot.load_clip("toy")
    toy = tiny.dataset(clip.image_size).task(1)
    model = fewshot.fit("zero_shot", clip, toy)
    model.save(here / "model.safetensors")
    fewshot.fit("zero_shot", tiny.clip(), tiny.task()).save(here / "other.safetensors")
    whole = (here / "model.safetensors").read_bytes()
    (here / "torn.safetensors").write_bytes(whole[: len(whole) // 2])
    (here / "empty.safetensors").touch()
    save_file({"a": torch.zeros(1)}, here / "plain.safetensors")
    meta = {"format": "fewshot-method-1", "method": "zero_shot", "clip": "toy", "clip_fingerprint": clip.fingerprint}
    for name, change in {
        "newer": {"format": "fewshot-method-9"},
        "stripped": {},
        "strange": {"method": "copp"},
    }.items():
        save_file({"a": torch.zeros(1)}, here / f"{name}.safetensors", {"fewshot": json.dumps(meta | change)})
    save_file({"a": torch.zeros(1)}, here / "listed.safetensors", {"fewshot": "[1]"})
    torch.save({"a": object}, here / "objects.pt")
    torch.save({"a": 1}, here / "numbers.pt")
    (here / "empty.pt").touch()
    (here / "words.pt").write_text("no weights")
    with zipfile.ZipFile(here / "zip.pt", "w") as archive:
        archive.writestr("a.txt", "no weights")
    (here / "long_header.safetensors").write_bytes(b"\xff" * 7 + b"\x7f{}")
    save_file(tiny.weights(), here / "tiny_vit.safetensors")
    whole = (here / "tiny_vit.safetensors").read_bytes()
    (here / "half_weights.safetensors").write_bytes(whole[: len(whole) // 2])


def _profiles(here: Path) -> None:
    folder = here / "profiles"
    folder.mkdir()
    texts = {
        "torn": "methods: {coop: [1",
        "listed": "- toy\n- coop\n",
        "field": "backbone: toy\nmetods: {}\n",
        "method": "methods: {copp: {epochs: 2}}\n",
        "flat": "methods: {coop: 3}\n",
        "words": "methods: coop\n",
        "text": "methods: {coop: {lr: 1e-3}}\n",
        "renamed": "profile: toy\n",
        "both": "weights: openai\npretrained: openai\n",
        "option": "methods: {coop: {epohcs: 3}}\n",
        "value": "methods: {coop: {epochs: ten}}\n",
        "nan": "methods: {coop: {lr: .nan}}\n",
        "date": "methods: {coop: {ctx_init: 2020-01-01}}\n",
        "number": "backbone: 3\n",
        "numbered": "methods: {coop: {3: 4}}\n",
        "code": "backbone: !!python/object/apply:os.system ['touch ran']\n",
        "backbone": "backbone: ViT-B-16-quikgelu\nweights: openai\n",
    }
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "binary.yaml").write_bytes(bytes(range(256)))
    (folder / "folder.yaml").mkdir()


def _notebooks(here: Path) -> None:
    cells = [nbformat.v4.new_code_cell("shots: list[int] = [1]\nfast: bool = False\nname = 'x'")]
    cells[0].metadata["tags"] = ["parameters"]
    book = nbformat.v4.new_notebook(cells=cells)
    book.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    nbformat.write(book, here / "book.ipynb")
    cells[0].metadata["tags"] = []
    nbformat.write(book, here / "untagged.ipynb")
    (here / "torn.ipynb").write_text('{"cells": [')


def _texts(here: Path) -> None:
    (here / "names.txt").write_text("cat\ndog\n")
    (here / "twice.txt").write_text("cat\ncat\n")
    (here / "none.txt").write_text("\n  \n")
    (here / "latin.txt").write_bytes(b"caf\xe9\n")
    (here / "torn.json").write_text('{"cat": [')
    (here / "numbers.json").write_text('{"cat": [1]}')
    (here / "no_class.json").write_text("{}")
    (here / "no_sentence.json").write_text('{"cat": [], "dog": []}')
    (here / "marked.json").write_text('{"cat": ["- A cat has fur."], "dog": ["A dog has fur."]}')


# ---- the command line


def refused(capsys, here: Path, argv: str, words) -> None:
    """Exit status 2, one line on stderr with these words, and the folder as it was."""
    before = listing(here)
    try:
        code = main(argv.split())
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    assert code == 2, (code, out, err)
    assert err.startswith("fewshot: ") and err.count("\n") == 1 and one_sentence(err.rstrip("\n")), err
    for word in words:
        assert word in err, (word, err)
    assert listing(here) == before


@table(
    ("nothing", "", "COMMAND", "fewshot --help"),
    ("a misspelt command", "rum", "'rum'", "did you mean 'run'"),
    ("an option alone", "--nope", "COMMAND", "--help"),
    ("too much", "methods coop", "coop", "--help"),
    ("a misspelt command of data", "data chek pets", "'chek'", "did you mean 'check'"),
    ("a misspelt command of texts", "texts genrate", "'genrate'", "did you mean 'generate'"),
)
def test_commands(given, words, capsys, here):
    refused(capsys, here, given, words)


RUN = "run --methods coop --datasets toy/pets --rows new.jsonl --shots 1 --seeds 1 --test-images 4"


@table(
    ("a misspelt method", "run --methods copp --datasets toy/pets --rows r.jsonl", "'copp'", "did you mean 'coop'"),
    ("a misspelt data set", "run --methods coop --datasets toy/petz --rows r.jsonl", "'toy/petz'", "'toy/pets'"),
    ("a folder that is not there", "run --methods coop --datasets ./gone --rows r.jsonl", "./gone", "check the path"),
    ("a folder of nobody", "run --methods coop --datasets ~nobody-here/x --rows r.jsonl", "~nobody-here/x", "whole path"),
    ("a picture as data set", "run --methods coop --datasets ./photo.png --shots 1 --rows r.jsonl", "photo.png", "folder"),
    ("a folder of one class", "run --methods coop --datasets ./one_class --shots 1 --rows r.jsonl", "only one class", "two"),
    ("a broken picture", "run --methods coop --datasets ./broken --shots 1 --rows r.jsonl", "x.jpg", "replace or remove"),
    ("shots beyond the folder", "run --methods coop --datasets ./photos --shots 9 --rows r.jsonl", "9 shots", "at most"),
    ("no shots", f"{RUN} --shots 0", "0", "zero_shot needs none"),
    ("negative shots", f"{RUN} --shots -2", "-2", "positive whole numbers"),
    ("shots in words", f"{RUN} --shots four", "--shots", "'four'", "--help"),
    ("seeds in words", f"{RUN} --seeds one", "--seeds", "'one'", "--help"),
    ("no seeds", f"{RUN} --seeds", "--seeds", "--help"),
    ("half a seed", f"{RUN} --seeds 1.5", "--seeds", "'1.5'", "--help"),
    ("a misspelt selection", f"{RUN} --selection fewvall", "'fewvall'", "did you mean 'fewval'"),
    ("no test pictures", f"{RUN} --test-images 0", "test pictures", "0"),
    ("negative test pictures", f"{RUN} --test-images -5", "test pictures", "-5"),
    ("test pictures in words", f"{RUN} --test-images all", "--test-images", "'all'"),
    ("negative workers", f"{RUN} --workers -1", "--workers", "0 or more"),
    ("workers in words", f"{RUN} --workers two", "--workers", "'two'"),
    ("an unknown option", f"{RUN} --sheds 3", "--sheds", "--help"),
    ("no rows file", "run --methods coop --datasets toy/pets", "--rows", "--help"),
    ("rows in a folder", "run --methods coop --datasets toy/pets --rows photos", "photos is a folder", "file name"),
    ("rows below a file", "run --methods coop --datasets toy/pets --rows photo.png/r.jsonl", "photo.png", "writable"),
    ("rows that are a picture", "run --methods coop --datasets toy/pets --rows photo.png", "photo.png", "not a row"),
    ("foreign rows", "run --methods coop --datasets toy/pets --rows foreign.jsonl", "foreign.jsonl line 1", "delete"),
    ("newer rows", "run --methods coop --datasets toy/pets --rows newer.jsonl", "newer fewshot", "update the package"),
    ("an unknown profile", f"{RUN} --profile to", "'to'", "did you mean 'toy'"),
    ("a profile that is not there", f"{RUN} --profile gone.yaml", "gone.yaml", "cannot be read"),
    ("torn YAML", f"{RUN} --profile profiles/torn.yaml", "torn.yaml", "not valid YAML"),
    ("a profile of bytes", f"{RUN} --profile profiles/binary.yaml", "binary.yaml", "not"),
    ("a profile that is a folder", f"{RUN} --profile profiles/folder.yaml", "folder.yaml", "cannot be read"),
    ("a list as profile", f"{RUN} --profile profiles/listed.yaml", "listed.yaml", "start from profiles/toy.yaml"),
    ("a misspelt field", f"{RUN} --profile profiles/field.yaml", "'metods'", "did you mean 'methods'"),
    ("a misspelt method of a profile", f"{RUN} --profile profiles/method.yaml", "'copp'", "did you mean 'coop'"),
    ("options that are none", f"{RUN} --profile profiles/flat.yaml", "coop is not a mapping", "options"),
    ("methods that are none", f"{RUN} --profile profiles/words.yaml", "methods is not a mapping", "options"),
    ("a number that YAML reads as text", f"{RUN} --profile profiles/text.yaml", "coop.lr", "write 0.001"),
    ("a profile under another name", f"{RUN} --profile profiles/renamed.yaml", "'renamed'", "name of the file"),
    ("weights twice", f"{RUN} --profile profiles/both.yaml", "weights and pretrained", "keep one"),
    ("a misspelt option", f"{RUN} --profile profiles/option.yaml", "'epohcs'", "did you mean 'epochs'"),
    ("an option in words", f"{RUN} --profile profiles/value.yaml", "epochs of coop", "whole number"),
    ("an option that is no number", f"{RUN} --profile profiles/nan.yaml", "lr of coop", "a finite number"),
    ("a date as an option", f"{RUN} --profile profiles/date.yaml", "ctx_init", "quotes"),
    ("a number as an option's name", f"{RUN} --profile profiles/numbered.yaml", "'3'", "known"),
    ("a number as backbone", f"{RUN} --profile profiles/number.yaml", "backbone", "text"),
    ("code in a profile", f"{RUN} --profile profiles/code.yaml", "code.yaml", "not valid YAML"),
    ("a misspelt backbone", f"{RUN} --profile profiles/backbone.yaml", "'ViT-B-16-quikgelu'", "did you mean"),
)  # fmt: skip
def test_run(given, words, capsys, here):
    refused(capsys, here, given, words)


PLAN = "plan --methods coop --datasets toy/pets --shots 1 --seeds 1"


@table(
    ("a misspelt method", "plan --methods copp --datasets toy/pets", "'copp'", "did you mean 'coop'"),
    ("seeds in words", f"{PLAN} --seeds one", "--seeds", "'one'"),
    ("no data", "plan --methods coop --datasets eurosat", "eurosat", "fewshot data fetch eurosat"),
    ("a broken picture", "plan --methods coop --datasets ./broken --shots 1", "x.jpg", "replace or remove"),
    ("newer rows", f"{PLAN} --shots 1 --rows newer.jsonl", "newer fewshot", "update"),
    ("rows in a folder", f"{PLAN} --shots 1 --rows photos", "photos is a folder", "file"),
    ("a misspelt option", f"{PLAN} --shots 1 --profile profiles/option.yaml", "'epohcs'", "did you mean 'epochs'"),
)  # fmt: skip
def test_plan(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("a misspelt experiment", "reproduce method_tabel", "'method_tabel'", "did you mean 'method_table'"),
    ("no experiment", "reproduce", "NAME", "--help"),
    ("a misspelt profile", "reproduce method_table --profile smok", "'smok'", "did you mean 'smoke'"),
    ("one file for two", "reproduce method_table selection --rows r.jsonl", "--rows", "give one"),
    ("negative workers", "reproduce method_table --workers -1", "--workers", "0 or more"),
    ("rows in a folder", "reproduce method_table --profile smoke --rows photos", "photos is a folder", "file name"),
    ("foreign rows", "reproduce method_table --profile smoke --rows foreign.jsonl", "foreign.jsonl line 1", "delete"),
)
def test_reproduce(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("no such file", "rows gone.jsonl", "gone.jsonl", "fewshot run --rows"),
    ("a folder", "rows photos", "photos is a folder", "file"),
    ("foreign rows", "rows foreign.jsonl", "foreign.jsonl line 1", "delete that line"),
    ("newer rows", "rows newer.jsonl", "line 1 was written by a newer fewshot", "update the package"),
    ("a torn line in the middle", "rows torn.jsonl", "line 1 is not a row", "restore the file"),
    ("bytes", "rows binary.jsonl", "binary.jsonl line 1", "restore the file"),
    ("rows of nothing", "rows bare.jsonl", "bare.jsonl", "seed"),
    ("a picture", "rows photo.png", "photo.png line 1", "restore the file"),
)
def test_rows(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("foreign results", "results", "x-toy.jsonl line 1", "delete that line"),
    ("results in a file", "photo.png", "FEWSHOT_RESULTS", "folder"),
)
def test_status(given, words, capsys, here, monkeypatch):
    monkeypatch.setenv("FEWSHOT_RESULTS", given)
    refused(capsys, here, "status", words)


PREDICT = "predict model.safetensors photo.png"


@table(
    ("no such model", "predict gone.safetensors photo.png", "gone.safetensors", "no file"),
    ("a folder as model", "predict photos photo.png", "photos", "model.save"),
    ("a torn model", "predict torn.safetensors photo.png", "torn.safetensors is damaged", "save"),
    ("an empty model", "predict empty.safetensors photo.png", "empty.safetensors is damaged", "save"),
    ("a picture as model", "predict photo.png photo.png", "photo.png is damaged or not a method", "save"),
    ("plain tensors", "predict plain.safetensors photo.png", "not a method that fewshot saved", "model.save"),
    ("a list as header", "predict listed.safetensors photo.png", "not a method that fewshot saved", "model.save"),
    ("a newer model", "predict newer.safetensors photo.png", "newer fewshot", "update"),
    ("a model without its names", "predict stripped.safetensors photo.png", "stripped.safetensors", "save it again"),
    ("a model of an unknown method", "predict strange.safetensors photo.png", "'copp'", "did you mean 'coop'"),
    ("another architecture", "predict other.safetensors photo.png", "learned on tiny-vit", "load that CLIP"),
    ("no such picture", "predict model.safetensors gone.png", "gone.png", "no file"),
    ("a folder as picture", "predict model.safetensors photos", "photos", "picture"),
    ("an empty picture", "predict model.safetensors empty.jpg", "0 bytes", "replace or remove"),
    ("text as picture", "predict model.safetensors photo.png words.png", "words.png", "replace or remove"),
    ("half a picture", "predict model.safetensors photo.png half.jpg", "half.jpg", "truncated", "replace or remove"),
    ("a bomb", "predict model.safetensors bomb.png", "bomb.png", "200000000 pixels", "replace or remove"),
    ("a thread", "predict model.safetensors thread.png", "thread.png", "60000 x 1", "crop"),
    ("no best class", f"{PREDICT} --top 0", "--top", "1 or more"),
    ("fewer than none", f"{PREDICT} --top -3", "--top", "1 or more"),
    ("a misspelt backbone", f"{PREDICT} --backbone tpy", "'tpy'", "did you mean 'toy'"),
    ("a backbone without weights", f"{PREDICT} --backbone ViT-B-16", "needs weights", "'openai'"),
    ("a misspelt tag", f"{PREDICT} --backbone ViT-B-16 --pretrained opnai", "'opnai'", "did you mean 'openai'"),
    ("no such weights", f"{PREDICT} --backbone ViT-B-16 --pretrained gone.pt", "gone.pt", "check the path"),
    ("weights of another architecture",
     f"{PREDICT} --backbone RN50 --pretrained tiny_vit.safetensors", "do not belong to RN50", "name"),
    ("weights that are objects",
     f"{PREDICT} --backbone ViT-B-16 --pretrained objects.pt", "objects.pt", "convert it to .safetensors"),
    ("weights that are a picture",
     f"{PREDICT} --backbone ViT-B-16 --pretrained photo.png", "photo.png", "convert it to .safetensors"),
)  # fmt: skip
def test_predict(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("a misspelt notebook", "notebook method_tabel", "'method_tabel'", "did you mean 'method_table'"),
    ("a path to nowhere", "notebook gone.ipynb", "gone.ipynb", "unknown notebook"),
    ("a misspelt parameter", "notebook book.ipynb -p shot=4", "'shot'", "did you mean 'shots'"),
    ("a parameter of the wrong type", "notebook book.ipynb -p shots=four", "shots wants list[int]", "'four'"),
    ("a parameter without a value", "notebook book.ipynb -p shots", "'shots'", "name=value"),
    ("YAML that is none", "notebook book.ipynb -p name=[1,", "name", "'[1,'"),
    ("a notebook without parameters", "notebook untagged.ipynb", "untagged.ipynb", "'parameters'"),
    ("a torn notebook", "notebook torn.ipynb", "torn.ipynb", "save it again"),
    ("a folder as output", "notebook book.ipynb -o photos", "photos is a folder", "name of a file"),
    ("an output below a file", "notebook book.ipynb -o photo.png/out.ipynb", "photo.png", "another place"),
    ("an output that is no notebook", "notebook book.ipynb -o out.txt", "out.txt", ".ipynb"),
)
def test_notebook(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("a misspelt name", "data list oxford_petz", "'oxford_petz'", "did you mean 'oxford_pets'"),
    ("a misspelt name to check", "data check eurosatt", "'eurosatt'", "did you mean 'eurosat'"),
    ("not here", "data check eurosat --root photos", "eurosat", "fewshot data fetch eurosat"),
    ("a misspelt name to fetch", "data fetch grocry", "'grocry'", "did you mean 'grocery'"),
    ("no name to fetch", "data fetch", "NAME", "--help"),
    ("a source that is not there", "data fetch eurosat --root data --from gone", "gone", "no file or folder"),
    ("one source for two", "data fetch eurosat dtd --from photos", "--from", "one by one"),
    ("a source that is a picture", "data fetch eurosat --root data --from photo.png", "photo.png", "neither a zip nor a tar"),
    ("a source without the files", "data fetch eurosat --root data --from photos", "photos holds none of", "name the file"),
    ("a root below a file", "data fetch eurosat --root photo.png/data", "photo.png/data", "--root"),
    ("a misspelt name to export", "data export-split toy/petz --shots 1", "'toy/petz'", "did you mean"),
    ("no shots", "data export-split toy/pets --shots 0", "shots", "at least 1"),
    ("shots in words", "data export-split toy/pets --shots all", "--shots", "'all'"),
    ("shots beyond the data", "data export-split ./photos --shots 5", "5 shots", "at most"),
    ("a seed in words", "data export-split toy/pets --shots 1 --seed one", "--seed", "'one'"),
    ("a misspelt order", "data export-split toy/pets --shots 1 --order coopp", "'coopp'", "did you mean 'coop'"),
    ("a folder as output", "data export-split ./photos --shots 1 -o photos", "photos is a folder", "name of a file"),
    ("an output below a file", "data export-split ./photos --shots 1 -o photo.png/x.jsonl", "photo.png", "another place"),
)  # fmt: skip
def test_data(given, words, capsys, here):
    refused(capsys, here, given, words)


ASK = "texts generate --model m -o new.json --base-url http://127.0.0.1:9/v1 --classes"
PAY = "texts generate --model m --classes names.txt"


@table(
    ("no key", f"{ASK} names.txt", "no key", "set OPENAI_API_KEY"),
    ("no model", "texts generate --classes names.txt -o new.json", "--model", "--help"),
    ("an address that is none", f"{PAY} -o new.json --base-url nowhere", "base URL", "such as"),
    ("a secret in the address", f"{PAY} -o new.json --base-url http://u:secret@h/v1", "password", "OPENAI_API_KEY"),
    ("a misspelt prompt", f"{ASK} names.txt --prompt visual", "'visual'", "did you mean 'visual10'"),
    ("no calls", f"{ASK} names.txt --calls 0", "--calls", "1 or more"),
    ("no calls allowed", f"{ASK} names.txt --max-calls 0", "--max-calls", "1 or more"),
    ("no sentences", f"{ASK} names.txt --sentences -1", "--sentences", "1 or more"),
    ("too hot", f"{ASK} names.txt --temperature 5", "--temperature", "between 0 and 2"),
    ("a temperature that is none", f"{ASK} names.txt --temperature nan", "--temperature", "between 0 and 2"),
    ("no time", f"{ASK} names.txt --timeout 0", "--timeout", "more than 0"),
    ("a time that is none", f"{ASK} names.txt --timeout nan", "--timeout", "more than 0"),
    ("an output that is no JSON", f"{PAY} -o new.txt", "new.txt", ".json"),
    ("an output below a file", f"{PAY} -o photo.png/new.json", "photo.png", "another place"),
    ("no such data set to show", "texts show toy/petz", "toy/petz", "JSON"),
    ("no such file to show", "texts show gone.json", "gone.json", "texts generate"),
    ("a torn file", "texts show torn.json", "torn.json", "not valid JSON"),
    ("numbers as sentences", "texts show numbers.json", "numbers.json", "every sentence a text"),
    ("no class", "texts check no_class.json", "no_class.json", "generate it again"),
    ("no sentence", "texts check no_sentence.json", "no_sentence.json", "generate the file again"),
    ("a picture", "texts check photo.png", "photo.png", "JSON"),
    ("faults", "texts check marked.json", "marked.json has", "faults", "correct them"),
)  # fmt: skip
def test_texts(given, words, capsys, here):
    refused(capsys, here, given, words)


@table(
    ("classes that are not there", "gone.txt", "'gone.txt'", "known"),
    ("a class twice", "twice.txt", "'cat' twice", "delete one"),
    ("no class", "none.txt", "holds no class name", "one on each line"),
    ("classes in another encoding", "latin.txt", "latin.txt", "text file"),
    ("a torn table", "torn.json", "torn.json", "text file"),
    ("a misspelt data set", "eurosatt", "'eurosatt'", "did you mean 'eurosat'"),
    ("a misspelt stand-in", "toy/petz", "'toy/petz'", "did you mean"),
)
def test_texts_of_classes(given, words, capsys, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "word")
    refused(capsys, here, f"{ASK} {given}", words)


@table(
    ("a cache below a file", ("FEWSHOT_CACHE", "photo.png/cache", f"{RUN} --shots 1"), "photo.png/cache", "FEWSHOT_CACHE"),
    ("a cache to plan with", ("FEWSHOT_CACHE", "photo.png/cache", f"{PLAN}"), "photo.png/cache", "FEWSHOT_CACHE"),
    ("a cache to look at", ("FEWSHOT_CACHE", "photo.png/cache", "status"), "photo.png/cache", "FEWSHOT_CACHE"),
    ("data nowhere", ("FEWSHOT_DATA", "gone", "data check eurosat"), "gone", "fewshot data fetch"),
    ("data of nobody", ("FEWSHOT_DATA", "~nobody-here/data", "data check eurosat"), "~nobody-here", "whole path"),
    ("results of another project", ("FEWSHOT_RESULTS", "results", f"{PLAN}"), "x-toy.jsonl", "delete that line"),
    ("a key with a break", ("OPENAI_API_KEY", "a b", f"{ASK} names.txt"), "OPENAI_API_KEY", "copy it again"),
)  # fmt: skip
def test_environment(given, words, capsys, here, monkeypatch):
    name, value, argv = given
    monkeypatch.setenv(name, value)
    refused(capsys, here, argv, words)


# ---- the parameters of a notebook


def answered(call, here: Path, words) -> None:
    """FewshotError with one sentence that has these words, and the folder as it was."""
    before = listing(here)
    with pytest.raises(FewshotError) as caught:
        call()
    text = str(caught.value)
    assert one_sentence(text), text
    for word in words:
        assert word in text, (word, text)
    assert listing(here) == before


def parameters(annotation, value, *choices, **others):
    scope = {"x": value, "__annotations__": {"x": annotation} if annotation else {}, **others}
    return settings(scope, **({"x": choices} if choices else {}))


@table(
    ("a name nobody annotated", lambda: parameters(int, 1, y=2), "'y'", "known: x"),
    ("a misspelt name", lambda: settings({"shots": 1, "shot": 2, "__annotations__": {"shots": int}}), "'shot'", "'shots'"),
    ("no annotation", lambda: parameters(None, 1), "no annotated parameter", "shots: list[int]"),
    ("words for a number", lambda: parameters(int, "four"), "x wants int", "'four'"),
    ("half a number", lambda: parameters(int, "4.5"), "x wants int", "'4.5'"),
    ("a truth for a number", lambda: parameters(int, True), "x wants int", "True"),
    ("nothing for a number", lambda: parameters("int", None), "x wants int", "None"),
    ("a number for a text", lambda: parameters(str, 4), "x wants str", "4"),
    ("words for a truth", lambda: parameters("bool", "maybe"), "x wants bool", "'maybe'"),
    ("words in a list of numbers", lambda: parameters(list[int], "[1, a]"), "x wants list[int]", "'a'"),
    ("a list in a list", lambda: parameters(list[int], "[[1]]"), "x wants list[int]", "[1]"),
    ("YAML that is none", lambda: parameters("list[int]", "[1,"), "x wants list[int]", "'[1,'"),
    ("an object of Python", lambda: parameters(list[int], "!!python/object/apply:os.mkdir [ran]"), "x wants", "os.mkdir"),
    ("a mapping", lambda: parameters(list[int], {"a": 1}), "x wants list[int]", "'a'"),
    ("a misspelt choice", lambda: parameters(str, "copp", "coop", "gda"), "'copp'", "did you mean 'coop'"),
    ("a misspelt choice in a list", lambda: parameters(list[str], ["gda", "copp"], "coop", "gda"), "'copp'", "'coop'"),
    ("a number that is no choice", lambda: parameters(int, 3, 1, 2, 4), "3 is not one of", "1, 2, 4"),
    ("an empty list", lambda: parameters(list[int], [], 1, 2), "x is empty", "choose from 1, 2"),
    ("a mapping as annotation", lambda: parameters(dict, {}), "annotated dict", "use int, float"),
    ("a misspelt annotation", lambda: parameters("in", 3), "annotated in", "use int, float"),
    ("code as annotation", lambda: parameters("__import__('os').mkdir('ran') or int", 3), "mkdir", "use int, float"),
    ("no value", lambda: settings({"__annotations__": {"x": int}}), "'x' has no value", "give it one"),
)  # fmt: skip
def test_parameters(given, words, here):
    answered(given, here, words)


# ---- data sets of one's own


@table(
    ("no such folder", lambda: from_folder("gone"), "gone does not exist", "looked in"),
    ("the folder of nobody", lambda: from_folder("~nobody-here/x"), "~nobody-here/x", "whole path"),
    ("a name longer than any file's", lambda: fewshot.load_dataset("x" * 300), "too long", "check the path"),
    ("a name with a null byte", lambda: fewshot.load_dataset("a\0b"), r"a\x00b", "check the path"),
    ("a picture", lambda: from_folder("photo.png"), "photo.png is a file", "one folder per class"),
    ("an empty folder", lambda: from_folder("profiles/folder.yaml"), "no class folders", "a folder of its own"),
    ("pictures without class folders", lambda: from_folder("photos/cat"), "4 pictures directly", "a folder of its own"),
    ("one class", lambda: from_folder("one_class"), "only one class, 'cat'", "at least two"),
    ("an empty picture", lambda: from_folder("broken"), "x.jpg", "0 bytes", "replace or remove"),
    ("a class without pictures", lambda: from_folder("hollow"), "dog holds no picture", "fill or remove it"),
    ("pictures of a phone", lambda: from_folder("phone"), ".heic", "convert them to JPEG or PNG"),
    ("two parts of one name", lambda: from_folder("parts"), "'train' and 'training'", "keep one"),
    ("a class that has no test", lambda: from_folder("uneven"), "'dog'", "every class needs one"),
    ("one picture of a class", lambda: from_folder("single"), "a single picture", "add pictures"),
    ("two names that read the same", lambda: from_folder("alike"), "'red apple' and 'red_apple'", "rename one"),
    ("a name that is white space", lambda: from_folder("blank"), "has no name", "not empty"),
    ("a template without a place", lambda: from_folder("photos", template="a photo"), "exactly one {}", "as in"),
    ("shares above one", lambda: from_folder("photos", val=0.8, test=0.4), "val=0.8", "leave some for train"),
    ("16 bits in a TIFF", lambda: from_folder("deep"), "more than 8 bits", "scale it to 8 bits"),
    ("a name with a line break", lambda: from_folder("broken_line"), r"new\nline.jpg", "replace or remove"),
    ("no data set", lambda: fewshot.load_dataset(""), "is no data set", "give a name"),
    ("a misspelt data set", lambda: fewshot.load_dataset("oxford_petz"), "'oxford_petz'", "did you mean 'oxford_pets'"),
    ("choices of a named data set", lambda: fewshot.load_dataset("toy/pets", val=0.1), "takes no val", "CSV files do"),
    ("shots in words", lambda: fewshot.load_task("./photos", "4"), "'4'", "a whole number"),
    ("half a shot", lambda: fewshot.load_task("./photos", 2.5), "2.5", "a whole number"),
    ("a truth as shots", lambda: fewshot.load_task("./photos", True), "True", "a whole number"),
    ("no shots", lambda: fewshot.load_task("./photos", 0), "not 0", "at least 1"),
    ("negative shots", lambda: fewshot.load_task("./photos", -1), "not -1", "at least 1"),
    ("shots beyond the data", lambda: fewshot.load_task("./photos", 9), "fewer than 9", "ask for at most 2 shots"),
    ("a seed in words", lambda: fewshot.load_task("./photos", 1, "one"), "'one'", "a whole number"),
    ("a misspelt order", lambda: fewshot.load_task("./photos", 1, 1, "cop"), "'cop'", "did you mean 'coop'"),
    ("a third half", lambda: fewshot.load_task("./photos", 1).half("old"), "'old'", "base, new"),
)  # fmt: skip
def test_folders(given, words, here):
    answered(given, here, words)


@table(
    ("an empty file", "", "no column 'image'", "the first line must name"),
    ("columns under other names", "file,label\na,b", "its columns: file, label", "must name image, class"),
    ("no picture", "image,class\n", "lists no picture", "add a line"),
    ("a picture that is not there", "image,class\ngone.png,cat", "line 2", "gone.png", "does not exist"),
    ("no class", "image,class\nphotos/cat/0.png,  ", "line 2", "has no class", "give it one"),
    ("no image", "image,class\n,cat", "line 2", "has no image", "give it one"),
    ("a misspelt part", "image,class,split\nphotos/cat/0.png,cat,tets", "'tets'", "train, val or test"),
    ("one class", "image,class\nphotos/cat/0.png,cat\nphotos/cat/1.png,cat", "only one class, 'cat'", "at least two"),
    ("another encoding", b"image,class\nphotos/cat/0.png,K\xe4tzchen", "not UTF-8", "save it as CSV UTF-8"),
    ("a field without an end", 'image,class\nphotos/cat/0.png,"' + "cat" * 50_000, "line 1", "not CSV", "correct it"),
    ("names that read the same", "image,class\nphotos/cat/0.png,red_cat\nphotos/dog/0.png,Red cat", "read the same", "rename"),
    ("an empty picture", "image,class\nempty.jpg,cat\nphotos/dog/0.png,dog", "empty.jpg", "0 bytes", "replace or remove"),
)  # fmt: skip
def test_csv_files(given, words, here, tmp_path):
    (tmp_path / "list.csv").write_bytes(given if isinstance(given, bytes) else given.encode())
    answered(lambda: from_csv(tmp_path / "list.csv", root=here), here, words)


PIXELS = np.random.default_rng(0).integers(0, 256, (8, 3, 8, 9), dtype=np.uint8)
LABELS = np.repeat([0, 1], 4)


def arrays(images=PIXELS, labels=LABELS, classnames=("cat", "dog"), **more):
    return from_arrays(images, labels, classnames, **more)


@table(
    ("one picture without its axis", lambda: arrays(PIXELS[0, 0]), "[8, 9]", "must be [N,H,W,3]"),
    ("nothing", lambda: arrays(None), "[]", "must be [N,H,W,3]"),
    ("an alpha channel", lambda: arrays(np.zeros((8, 4, 8, 9), np.uint8)), "[8, 4, 8, 9]", "drop an alpha channel"),
    ("whole numbers of 64 bits", lambda: arrays(PIXELS.astype(int)), "int64", "astype('uint8')"),
    ("floats up to 255", lambda: arrays(PIXELS.astype(float)), "must lie in 0..1", "give uint8"),
    ("floats that are none", lambda: arrays(np.full(PIXELS.shape, np.nan)), "must lie in 0..1", "give uint8"),
    ("texts", lambda: arrays(np.full(PIXELS.shape, "a")), "must be uint8", "if the values fit"),
    ("too few labels", lambda: arrays(labels=LABELS[:3]), "labels of shape [8]", "[3]"),
    ("labels in words", lambda: arrays(labels=["cat"] * 8), "whole numbers", "positions in classnames"),
    ("a negative label", lambda: arrays(labels=LABELS - 1 + np.arange(8) % 2), "labels", "0 to 1"),
    ("a class without pictures", lambda: arrays(classnames=("cat", "dog", "cow")), "'cow'", "leave it out"),
    ("a class twice", lambda: arrays(classnames=("cat", "cat")), "'cat' and 'cat'", "rename one"),
    ("an empty name", lambda: arrays(classnames=("cat", "")), "has no name", "not empty"),
    ("a name of white space", lambda: arrays(classnames=("cat", " \t")), "has no name", "not empty"),
    ("a number as name", lambda: arrays(classnames=(1, 2)), "has no name", "a text"),
    ("a misspelt part", lambda: arrays(split=["train"] * 7 + ["tset"]), "'tset'", "did you mean 'test'"),
)  # fmt: skip
def test_arrays(given, words, here):
    answered(given, here, words)


# ---- runs, fitting, asking


@pytest.fixture(scope="module")
def models(bench):
    """A method that takes features and one that takes pixels, on a tiny CLIP."""
    names = ("zero_shot", "clip_lora")
    return {
        name: fewshot.fit(name, tiny.clip(), tiny.task(), progress=False, **tiny.quick(name, "vit")) for name in names
    }


LONG = " ".join(["nice"] * 200)


def fitted(method="tip_adapter", clip=None, task=None, **more):
    return fewshot.fit(method, clip or tiny.clip(), task or tiny.task(), progress=False, **more)


def of_classes(*names):
    return replace(tiny.task(), classnames=names)


def coop(shots=1, **more):
    return Run("x", "coop", "toy/pets", shots, **more)


@table(
    ("shots in words", lambda: coop(shots="4"), "'4'", "whole number"),
    ("no shots", lambda: coop(shots=0), "0 shots", "at least 1"),
    ("shots for nothing", lambda: Run("x", "zero_shot", "toy/pets", 4), "4 shots", "takes 0 shots"),
    ("a seed in words", lambda: coop(seed="one"), "'one'", "whole numbers"),
    ("a misspelt selection", lambda: coop(selection="fewwal"), "'fewwal'", "'fewval'"),
    ("an oracle elsewhere", lambda: coop(selection="oracle", target="new"), "oracle", "target="),
    ("no pictures to test", lambda: coop(limit=0), "limit", "None for all"),
    ("a truth as limit", lambda: coop(limit=True), "limit", "None for all"),
    ("an option that is no number", lambda: coop(config={"lr": float("nan")}), "lr of coop", "finite"),
    ("an option that is an object", lambda: coop(config={"lr": object}), "lr of coop", "a list of those"),
    ("a misspelt target", lambda: grid("x", "coop", "toy/pets", 1, targets=["nev"]), "'nev'", "did you mean 'new'"),
    ("seeds in words", lambda: grid("x", "coop", "toy/pets", 1, ["one"]), "'one'", "whole numbers"),
    ("a data set without a name", lambda: grid("x", "coop", "", 1), "''", "known"),
)  # fmt: skip
def test_runs(given, words, here):
    answered(given, here, words)


@table(
    ("a misspelt method", lambda: fitted("tip_adaptor"), "'tip_adaptor'", "did you mean 'tip_adapter'"),
    ("a misspelt option", lambda: fitted(betta=1.0), "'betta'", "did you mean 'beta'"),
    ("a learning rate that is none", lambda: fitted("coop", lr=float("nan")), "lr of coop", "from 0 on"),
    ("no epochs", lambda: fitted("coop", epochs=0), "epochs of coop", "from 1 on"),
    ("a seed in words", lambda: fitted(seed="one"), "'one'", "whole number"),
    ("a misspelt selection", lambda: fitted(selection="fixt"), "'fixt'", "did you mean 'fixed'"),
    ("the test set to choose on", lambda: fitted(selection="oracle"), "never sees the test", "fewshot.select.oracle"),
    ("a name as task", lambda: fitted(task="toy/pets"), "load_task", "load_clip"),
    ("a name as CLIP", lambda: fitted(clip="toy"), "load_task", "load_clip"),
    ("no training pictures", lambda: fitted(task=tiny.dataset(32).without_support()), "no training pictures", "one shot"),
    ("a name of 200 tokens", lambda: fitted("zero_shot", task=of_classes(LONG, "b", "c", "d")), "tokens", "shorten it"),
    ("a name of 200 tokens to learn", lambda: fitted("coop", task=of_classes(LONG, "b", "c", "d")), "tokens", "shorten it"),
    ("a CLIP that is not known", lambda: fewshot.load_clip("toi"), "'toi'", "did you mean 'toy'"),
    ("a CLIP without weights", lambda: fewshot.load_clip("RN50"), "needs weights", "'openai'"),
)  # fmt: skip
def test_fitting(given, words, here):
    answered(given, here, words)


@table(
    ("one picture without its axis", lambda m, _: m.predict(torch.zeros(3, 32, 32)), "[3, 32, 32]", "[B, 3, 32, 32]"),
    ("another size", lambda m, _: m.predict(torch.zeros(1, 3, 31, 31)), "[1, 3, 31, 31]", "[B, 3, 32, 32]"),
    ("grey pixels", lambda m, _: m.predict(torch.zeros(1, 1, 32, 32)), "[1, 1, 32, 32]", "[B, 3, 32, 32]"),
    ("bytes", lambda m, _: m.predict(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)), "uint8", "preprocessed pixels"),
    ("nothing", lambda m, _: m.predict(None), "as paths", "preprocessed pixels"),
    ("a number", lambda m, _: m.predict_proba(3), "as paths", "preprocessed pixels"),
    ("paths and pictures", lambda m, _: m.predict(["photo.png", photo()]), "as paths", "as PIL images"),
    ("a picture that is not there", lambda m, _: m.predict("gone.png"), "gone.png does not exist", "check the path"),
    ("half a picture", lambda m, _: m.predict("half.jpg"), "half.jpg", "replace or remove"),
    ("16 bits without a range", lambda m, _: m.predict(Image.new("I;16", (8, 8), 3000)), "more than 8 bits", "scale it"),
    ("features of another width", lambda m, _: m.logits(torch.zeros(2, 31)), "[2, 31]", "[B, 32]"),
    ("one feature without its axis", lambda m, _: m.logits(torch.zeros(32)), "[32]", "[B, 32]"),
    ("features of whole numbers", lambda m, _: m.logits(torch.zeros(2, 32, dtype=torch.long)), "int64", "encode_image"),
    ("an array for features", lambda m, _: m.logits(np.zeros((2, 32))), "a ndarray", "encode_image"),
    ("pixels for features", lambda m, _: m.logits(torch.zeros(2, 3, 32, 32)), "[2, 3, 32, 32]", "encode_image"),
    ("features for pixels", lambda _, m: m.logits(torch.zeros(2, 32)), "[2, 32]", "model.predict"),
    ("another size for pixels", lambda _, m: m.logits(torch.zeros(2, 3, 64, 64)), "[2, 3, 64, 64]", "[B, 3, 32, 32]"),
    ("pixels to evaluate", lambda m, _: fewshot.evaluate(m, torch.zeros(2, 3, 32, 32)), "a Tensor", "task.test"),
    ("a path to evaluate", lambda m, _: fewshot.evaluate(m, "photos"), "a str", "model.predict"),
    ("nothing to evaluate", lambda m, _: fewshot.evaluate(m, tiny.task().test.subset([])), "no pictures", "task.test"),
    ("labels beyond the classes", lambda m, _: fewshot.evaluate(m, tiny.task().test.relabel([9] * 40)), "go up to 9", "retarget"),
    ("classes nobody knows", lambda m, _: fewshot.evaluate(m, tiny.task().test, ["tea"]), "'tea'", "retarget"),
    ("pictures for an encoder", lambda m, _: tiny.clip().encode_image(photo()), "a Image", "[B, 3, 32, 32]"),
    ("a text that is too long", lambda m, _: tiny.clip().encode_text([LONG]), "202 tokens", "shorten it"),
    ("features of a path", lambda m, _: fewshot.image_features(tiny.clip(), "photos"), "a str", "from_folder"),
    ("one name as classes", lambda m, _: m.retarget("cat"), "a sequence of names", "none of them empty"),
    ("no classes", lambda m, _: m.retarget([]), "no classes", "at least one"),
    ("an empty class", lambda m, _: m.retarget(["cat", " "]), "none of them empty", "one string per class"),
)  # fmt: skip
def test_asking(given, words, here, models):
    answered(lambda: given(*models.values()), here, words)


# ---- weights


def in_model(path, **more):
    return fewshot.load_clip(more.pop("name", "ViT-B-16-quickgelu"), path, device="cpu")


@table(
    ("no such file", lambda: read_state_dict("gone.safetensors"), "gone.safetensors does not exist", "give the path"),
    ("a folder", lambda: read_state_dict("photos"), "photos does not exist", "give the path"),
    ("an empty file", lambda: read_state_dict("empty.safetensors"), "empty.safetensors", "damaged"),
    ("half a file", lambda: read_state_dict("half_weights.safetensors"), "half_weights.safetensors", "damaged"),
    ("a header without an end", lambda: read_state_dict("long_header.safetensors"), "long_header.safetensors", "damaged"),
    ("an empty checkpoint", lambda: read_state_dict("empty.pt"), "empty.pt", "damaged"),
    ("a text", lambda: read_state_dict("words.pt"), "words.pt", ".safetensors"),
    ("an archive of something else", lambda: read_state_dict("zip.pt"), "zip.pt", "damaged"),
    ("numbers", lambda: read_state_dict("numbers.pt"), "no state dict", "model.state_dict()"),
    ("a number in a file of OpenAI's", lambda: fewshot.load_clip("tiny_vit.safetensors"), "which activation", "name the model"),
    ("another width", lambda: in_model("tiny_vit.safetensors"), "do not belong to ViT-B-16-quickgelu", "name the model"),
    ("tensors of something else", lambda: in_model("plain.safetensors"), "lack", "name the model"),
)  # fmt: skip
def test_weights(given, words, here):
    answered(given, here, words)


# ---- splits


@table(
    ("no such file", None, "gone.jsonl", "cannot be read"),
    ("another encoding", b"\xe4", "split.jsonl", "not UTF-8 text"),
    ("a line that is none", "{}\n{", "line 2", "not JSON"),
    ("a line without a picture", '{}\n{"a": 1}', "line 2", "it needs a path"),
    ("no picture", "{}", "lists no training picture", "split.jsonl"),
    ("a picture that is not there", '{"path": "cat/9.png"}', "'cat/9.png'", "no picture of photos"),
    ("another label", '{"path": "PATH", "label": 1}', "label 1", "it has 0"),
    ("another class", '{"path": "PATH", "class": "dog"}', "'dog'", "not 'cat'"),
    ("another part", '{"path": "PATH", "part": "test"}', "'test'", "train or val"),
    ("a changed draw", '{"split_hash": "0"}\n{"path": "PATH"}', "was changed", "the hash in its first line"),
)
def test_splits(given, words, here, tmp_path):
    dataset = from_folder("photos")
    path = tmp_path / ("gone.jsonl" if given is None else "split.jsonl")
    if given is not None:
        own = next(i for i in dataset.train.ids if i.startswith("cat"))
        path.write_bytes(given if isinstance(given, bytes) else given.replace("PATH", own).encode())
    answered(lambda: import_split(path, dataset), here, words)


# ---- what is odd and right


def turned(orientation: int):
    """(picture, writer): a JPEG stored as a camera stores it, and what it shows."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip

    def write(path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        photo().transpose(back[orientation]).save(path, "JPEG", quality=100, subsampling=0, exif=exif)

    return write


def moving(kind: str):
    return lambda path: photo().save(path, kind, save_all=True, append_images=[photo(1), photo(2)], lossless=True)


GREY = np.asarray(photo().convert("L"))

ODD = {
    "cmyk.jpg": (lambda path: photo().convert("CMYK").save(path, quality=100, subsampling=0), photo(), 3),
    "cmyk.tif": (lambda path: photo().convert("CMYK").save(path), photo(), 0),
    "palette.png": (lambda path: photo().quantize(64).save(path), photo().quantize(64).convert("RGB"), 0),
    "palette.gif": (lambda path: photo().quantize(64).save(path), photo().quantize(64).convert("RGB"), 0),
    "alpha.png": (lambda path: photo().convert("RGBA").save(path), photo(), 0),
    "grey.png": (lambda path: photo().convert("L").save(path), photo().convert("L").convert("RGB"), 0),
    "grey_alpha.png": (lambda path: photo().convert("LA").save(path), photo().convert("L").convert("RGB"), 0),
    "bits.png": (lambda path: photo().convert("1").save(path), photo().convert("1").convert("RGB"), 0),
    "deep_grey.png": (
        lambda path: Image.fromarray(GREY.astype(np.uint16) * 257).save(path),
        Image.fromarray(GREY).convert("RGB"),
        0,
    ),
    "deep_colour.png": (lambda path: path.write_bytes(deep_png(np.asarray(photo()))), photo(), 0),
    "deep_grey.pgm": (
        lambda path: path.write_bytes(b"P5 24 20 65535\n" + (GREY.astype(">u2") * 257).tobytes()),
        Image.fromarray(GREY).convert("RGB"),
        0,
    ),
    **{f"turned_{i}.jpg": (turned(i), photo(), 6) for i in range(2, 9)},
    "broken_exif.jpg": (
        lambda path: photo().save(path, quality=100, subsampling=0, exif=b"Exif\0\0II*\0zzzz"),
        photo(),
        6,
    ),
    "moving.gif": (lambda path: moving("GIF")(path), photo(), 60),
    "moving.png": (lambda path: moving("PNG")(path), photo(), 0),
    "moving.webp": (lambda path: moving("WEBP")(path), photo(), 0),
    "two words.png": (lambda path: photo().save(path), photo(), 0),
    "Ärger.png": (lambda path: photo().save(path), photo(), 0),
    "写真.png": (lambda path: photo().save(path), photo(), 0),
    "new\nline.png": (lambda path: photo().save(path), photo(), 0),
    "quo'te\".png": (lambda path: photo().save(path), photo(), 0),
    "-dash%41#.png": (lambda path: photo().save(path), photo(), 0),
    "UPPER.PNG": (lambda path: photo().save(path, "PNG"), photo(), 0),
    "a png.jpg": (lambda path: photo().save(path, "PNG"), photo(), 0),  # the content counts, not the suffix
}


def deep_png(rgb: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which PIL reads and does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = rgb.shape
    lines = b"".join(b"\0" + (line.astype(">u2") * 257).tobytes() for line in rgb)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", ODD)
def test_odd_pictures_show_what_every_viewer_shows(name, tmp_path, models):
    write, twin, tolerance = ODD[name]
    for folder in ("odd", "even"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "odd" / name)
    photo(1).save(tmp_path / "even" / "0.png")
    dataset = from_folder(tmp_path, val=0, test=0)
    seen = dataset.train.pil(dataset.train.ids.index(f"odd/{name}"))
    difference = np.abs(np.asarray(seen).astype(int) - np.asarray(twin))
    assert seen.mode == "RGB" and difference.max() <= tolerance
    same = models["zero_shot"].predict_proba([str(tmp_path / "odd" / name)])
    assert torch.equal(same, models["zero_shot"].predict_proba([seen]))


def test_a_bomb_between_pils_warning_and_its_error_is_read_header_and_all(tmp_path):
    """A large photograph is no mistake: PIL warns of 90 million pixels and refuses 180."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
        photo().save(tmp_path / "a.png")
        images = fewshot.data.ImageFiles(tmp_path, ["a.png"], [0])
        with pytest.warns(Image.DecompressionBombWarning):
            assert images.pil(0).size == (24, 20)
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
        with pytest.raises(
            FewshotError, match="a.png cannot be read: .* more than memory may hold; replace or remove it"
        ):
            images.pil(0)


def test_a_turned_picture_of_a_named_data_set_is_read_as_it_is_stored(tmp_path, monkeypatch):
    """The published numbers were measured so."""
    assert not fewshot.data.ImageFiles(tmp_path, [], []).upright
    write, _, _ = ODD["turned_6.jpg"]
    write(tmp_path / "a.jpg")
    assert fewshot.data.ImageFiles(tmp_path, ["a.jpg"], [0]).pil(0).size == (20, 24)


def test_file_names_that_are_no_unicode_are_read_drawn_and_written(tmp_path):
    class_folders(tmp_path / "x")
    name = os.fsdecode(b"caf\xe9.png")
    try:
        (tmp_path / "x" / "cat" / "0.png").rename(tmp_path / "x" / "cat" / name)
    except OSError:
        pytest.skip("this file system only takes Unicode names")
    task = from_folder(tmp_path / "x", val=0, test=0).task(4)
    assert any(name in i for i in task.train.ids)
    export_split(task, tmp_path / "split.jsonl")
    again = import_split(tmp_path / "split.jsonl", from_folder(tmp_path / "x", val=0, test=0))
    assert again.train.ids == task.train.ids
    (tmp_path / "x" / "dog").rename(tmp_path / "x" / os.fsdecode(b"\xe9"))
    with pytest.raises(FewshotError, match=r"the name '.+udce9' of a class of x is not UTF-8; rename it"):
        from_folder(tmp_path / "x")


def test_names_with_spaces_accents_and_odd_case_are_classes(tmp_path):
    names = ("Ärger", "crème brûlée", "two words", "under_score", "写真")
    dataset = from_folder(class_folders(tmp_path / "x", names))
    assert set(dataset.classnames) == set(names) and len(dataset.test) == len(names)
    model = fewshot.fit("zero_shot", tiny.clip(), dataset.without_support())
    assert model.predict_proba(dataset.test).shape == (len(names), len(names))


def test_every_table_is_as_large_as_it_should_be():
    """120 ways to be wrong at the least."""
    marks = [
        mark for name, test in globals().items() if name.startswith("test_") for mark in getattr(test, "pytestmark", [])
    ]
    assert sum(len(mark.args[1]) for mark in marks if mark.name == "parametrize") >= 300
