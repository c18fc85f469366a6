"""What holds for every input: draws, splits, rows, prompts, keys, limits, ties; and no bytes bring anything but a sentence.

The examples are always the same ones (derandomize), and few.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import yaml
from hypothesis import HealthCheck, assume, configuration, given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot.data import ImageArrays, ImageFiles, from_arrays, import_split
from fewshot.data.dataset import Dataset
from fewshot.data.sampling import ORDERS, few_shot_indices
from fewshot.errors import FewshotError, on_one_line, unknown
from fewshot.methods.method import load_method
from fewshot.parameters import coerce
from fewshot.prompts import POSITIONS, Prompts
from fewshot.rows import Rows
from fewshot.runs import Run, limited, load_profile
from fewshot.weights import read_state_dict


def examples(count: int):
    return settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory):
    """What hypothesis keeps between its runs is not kept in the project."""
    configuration.set_hypothesis_home_dir(tmp_path_factory.mktemp("hypothesis"))


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60)
SEEDS = st.integers(-(2**40), 2**40)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


# ---- draws


@examples(80)
@given(LABELS, LABELS, st.integers(1, 20), SEEDS, st.sampled_from(ORDERS))
def test_a_draw_has_k_of_every_class_each_once_and_is_the_same_again(train, val, shots, seed, order):
    rows, val_rows = few_shot_indices(train, val, shots, seed, order)
    for labels, drawn, most in ((train, rows, shots), (val, val_rows, min(shots, 4))):
        assert len(set(drawn.tolist())) == len(drawn)
        counts = Counter(labels[i] for i in drawn)
        assert counts == {c: min(n, most) for c, n in Counter(labels).items()}
        assert list(dict.fromkeys(labels[i] for i in drawn)) == list(dict.fromkeys(labels))  # in order of appearance
    again = few_shot_indices(np.array(train), np.array(val), shots, seed, order)
    assert np.array_equal(again[0], rows) and np.array_equal(again[1], val_rows)


@examples(60)
@given(LABELS, st.integers(1, 20), SEEDS)
def test_what_is_drawn_for_training_depends_on_nothing_but_the_training_labels(train, shots, seed):
    """So a data set may get validation pictures later, and its few shots stay (order coop)."""
    alone, none = few_shot_indices(train, None, shots, seed)
    assert len(none) == 0
    assert np.array_equal(alone, few_shot_indices(train, [0, 1, 2] * 9, shots, seed)[0])
    renamed = few_shot_indices([7 - label for label in train], None, shots, seed)[0]
    assert np.array_equal(alone, renamed)


@examples(60)
@given(st.lists(st.integers(2, 12), min_size=2, max_size=5), st.integers(0, 2**20), st.data())
def test_pictures_are_divided_without_loss_or_overlap_and_a_new_one_moves_no_other_class(sizes, seed, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    names = [f"class {c}" for c in range(len(sizes))]
    pixels = np.zeros((len(labels), 3, 2, 2), np.uint8)

    def divided(labels, ids):
        dataset = from_arrays(np.zeros((len(labels), 3, 4, 4), np.uint8), labels, names, ids=ids, split_seed=seed)
        return {part: list(getattr(dataset, part).ids) for part in ("train", "val", "test")}, dataset

    ids = [f"{label}/{i}" for i, label in enumerate(labels)]
    parts, dataset = divided(labels, ids)
    assert sorted(i for part in parts.values() for i in part) == sorted(ids) and len(pixels) == len(ids)
    for part in ("train", "test"):
        assert set(getattr(dataset, part).labels.tolist()) == set(range(len(sizes)))
    grown = data.draw(st.integers(0, len(sizes) - 1))
    more, _ = divided(np.append(labels, grown), [*ids, f"{grown}/new"])
    for part, members in parts.items():
        others = [i for i in members if not i.startswith(f"{grown}/")]
        assert [i for i in more[part] if not i.startswith(f"{grown}/")] == others
    shots = data.draw(st.integers(1, 6))
    task = dataset.task(shots, seed, allow_fewer=True)
    assert not set(task.train.ids) & set(task.val.ids) and not set(task.train.ids) & set(task.test.ids)
    assert set(task.train.ids) <= set(parts["train"]) and set(task.val.ids) <= set(parts["val"])


@examples(60)
@given(st.integers(2, 9), st.lists(st.integers(0, 8), max_size=40), st.integers(1, 4))
def test_base_and_new_are_two_halves_that_make_the_whole(classes, labels, shots):
    labels = [label % classes for label in labels]
    images = ImageArrays(np.zeros((len(labels), 3, 1, 1), np.uint8), labels)
    names = tuple(f"class {c}" for c in range(classes))
    task = Dataset("x", names, "a {}", images, images, images).task(shots, allow_fewer=True)
    base, new = task.half("base"), task.half("new")
    assert base.classnames + new.classnames == names and len(base.classnames) - len(new.classnames) in (0, 1)
    for part in ("train", "val", "test"):
        whole, first, second = (getattr(one, part) for one in (task, base, new))
        assert sorted(first.ids + second.ids) == sorted(whole.ids)
        own = dict(zip(whole.ids, whole.labels.tolist()))
        assert [own[i] for i in first.ids] == first.labels.tolist()
        assert [own[i] - len(base.classnames) for i in second.ids] == second.labels.tolist()


@examples(80)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=30), st.floats(0.1, 1.2), st.floats(0.1, 1.2))
def test_a_limit_takes_the_first_of_each_class_evenly_and_a_smaller_one_takes_some_of_them(labels, share, other):
    limit, other = (max(1, round(one * len(labels))) for one in (share, other))
    images = ImageArrays(np.zeros((len(labels), 3, 1, 1), np.uint8), labels)
    kept = limited(images, limit)
    assert len(kept) == min(limit, len(labels)) and list(kept.ids) == sorted(kept.ids, key=int)
    have, counts = Counter(labels), Counter(kept.labels.tolist())
    assert all(counts[c] == have[c] or counts[c] >= max(counts.values()) - 1 for c in have)
    for c in have:
        assert [int(i) for i, label in zip(kept.ids, kept.labels) if label == c] == [
            i for i, label in enumerate(labels) if label == c
        ][: counts[c]]
    fewer = limited(images, min(limit, other))
    assert set(fewer.ids) <= set(kept.ids)
    assert limited(images, None) is images


# ---- rows

TEXT = st.text(st.characters(), max_size=12)  # with broken Unicode, as file names have it
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(TEXT.filter(lambda name: name not in ("key", "schema", "stamp", "accuracy")), JSON, max_size=4)


def row(number: int, fields: dict) -> dict:
    return fields | {"key": f"{number:016x}", "stamp": "s", "accuracy": 100 / (number + 1)}


@examples(30)
@given(st.lists(FIELDS, min_size=1, max_size=4))
def test_rows_come_back_as_they_went_in(fields):
    with fresh("r.jsonl") as path:
        rows = [row(i, one) for i, one in enumerate(fields)]
        for one in rows:
            Rows(path).append(one)
        for reader in (Rows(path), sorted_file(path)):
            assert [{k: v for k, v in reader.get(one["key"]).items() if k != "schema"} for one in rows] == rows


@examples(40)
@given(st.lists(FIELDS, min_size=1, max_size=3), FIELDS, st.data())
def test_a_row_after_any_cut_keeps_every_whole_row_and_no_torn_one(fields, last, data):
    with fresh("r.jsonl") as path:
        writer = Rows(path)
        ends = []
        for i, one in enumerate(fields):
            writer.append(row(i, one))
            ends.append(path.stat().st_size)
        cut = data.draw(st.integers(0, ends[-1]))
        os.truncate(path, cut)
        whole = [i for i, end in enumerate(ends) if cut >= end - 1]  # a row without its line end is whole
        reader = data.draw(st.sampled_from([writer, Rows(path)]))
        reader.append(row(9, last))
        assert Rows(path).keys() == reader.keys() == {row(i, {})["key"] for i in [*whole, 9]}
        assert all(json.loads(line)["key"] for line in path.read_bytes().splitlines())


@examples(60)
@given(st.binary(max_size=60) | TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_that_are_no_rows_are_a_sentence_or_a_torn_tail(noise):
    with fresh("r.jsonl") as path:
        path.write_bytes(noise)
        before = path.read_bytes()
        try:
            assert len(Rows(path)) == 0
        except FewshotError as error:
            assert sentence(error)
        assert path.read_bytes() == before


# ---- keys

SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text("abc", max_size=3)
CONFIGS = st.dictionaries(st.text("abcd", min_size=1, max_size=3), SCALARS, max_size=5)
RUNS = st.builds(
    Run,
    experiment=st.just("x"),
    method=st.sampled_from(["coop", "clip_lora"]),
    dataset=st.sampled_from(["toy/pets", "eurosat"]),
    shots=st.sampled_from([-1, 1, 4, 16]),
    seed=st.integers(0, 9),
    config=CONFIGS,
    backbone=st.sampled_from(["toy", "RN50"]),
    pretrained=st.sampled_from([None, "openai"]),
    selection=st.sampled_from([None, "fixed", "fewval"]),
    target=st.sampled_from([None, "base", "new", "dtd"]),
    limit=st.sampled_from([None, 4, 8]),
)


@examples(80)
@given(RUNS, st.randoms(use_true_random=False), st.text(max_size=5), st.text(max_size=5))
def test_a_key_knows_no_order_of_the_options_and_no_names(one, random, experiment, profile):
    items = list(one.config.items())
    random.shuffle(items)
    assert replace(one, config=dict(items), experiment=experiment, profile=profile).key == one.key
    assert len(one.key) == 16 and int(one.key, 16) >= 0
    copy = Run.from_row(
        json.loads(json.dumps(one.__dict__ | {"overrides": one.config, "selection_asked": one.selection}))
    )
    assert copy == one and copy.key == one.key


@examples(120)
@given(RUNS, RUNS)
def test_two_runs_have_one_key_only_when_they_are_one(one, other):
    same = json.dumps(one.__dict__, sort_keys=True) == json.dumps(other.__dict__, sort_keys=True)
    assert (one.key == other.key) == same
    name = next((name for name in one.__dict__ if one.__dict__[name] != other.__dict__[name]), None)
    if name is not None:  # any one field is enough
        assert replace(one, **{name: other.__dict__[name]}).key != one.key


# ---- prompts


@examples(40)
@given(st.lists(NAMES, min_size=1, max_size=3), st.integers(1, 6), st.sampled_from(POSITIONS))
def test_learned_vectors_stand_where_they_should_for_every_class_name(names, n, position):
    """The splice is an exact rearrangement: S, n vectors, the tokens of the name, and the rest, with EOT where it was."""
    clip = tiny.clip()
    try:
        prompts = Prompts(clip, names, n, position)
    except FewshotError as error:
        assert "tokens" in str(error) and sentence(error)
        assume(False)
    context = torch.arange(n * clip.text_width, dtype=torch.float32).view(n, -1) + 1000
    found = prompts.splice(context)
    width = prompts.eot.tolist()
    assert found.shape[1] == max(width) + 1 <= clip.context_length
    before = {"end": n, "middle": n // 2, "front": 0}[position]
    for c, name in enumerate(names):
        size = 0 if position == "end" else len(clip.tokenizer.encode(name.replace("_", " ")))
        frozen = prompts.embeddings[c]
        after = 1 + n + size
        expected = torch.cat(
            (frozen[:1], context[:before], frozen[1 + n : after], context[before:], frozen[after : found.shape[1]])
        )
        assert torch.equal(found[c], expected)
        tokens = prompts.tokens[c]
        assert tokens[width[c]] == tokens.max() and (tokens[: width[c]] < tokens.max()).all()


@examples(20)
@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_text_feature_depends_on_its_own_class_alone(names):
    clip = tiny.clip()
    try:
        together = clip.zero_shot_weights(names, "a photo of a {}.")
    except FewshotError as error:
        assert "tokens" in str(error) and sentence(error)
        return
    alone = torch.cat([clip.zero_shot_weights([name], "a photo of a {}.") for name in names])
    assert torch.allclose(together, alone, atol=1e-5)


# ---- the choice of Tip-Adapter


@examples(40)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.integers(2, 6), st.integers(2, 5), st.integers(0, 99))
def test_of_equal_accuracies_the_smallest_beta_and_then_the_smallest_alpha_is_chosen(labels, betas, alphas, seed):
    from fewshot.methods.tip_adapter import TipAdapter

    model = tip_adapter(betas, alphas)
    noise = torch.Generator().manual_seed(seed)
    features = torch.randn(6, tiny.clip().embed_dim, generator=noise)
    labels = torch.tensor(labels)
    chosen = model.choose(features, labels)
    accuracies, betas, alphas = model.search(features / features.norm(dim=-1, keepdim=True), labels)
    best = [(b, a) for i, b in enumerate(betas) for j, a in enumerate(alphas) if accuracies[i, j] == accuracies.max()]
    assert (chosen["beta"], chosen["alpha"]) == best[0] == min(best)
    assert isinstance(model, TipAdapter) and (model.beta, model.alpha) == best[0]


def tip_adapter(betas: int, alphas: int):
    from fewshot.methods.tip_adapter import Config, TipAdapter

    model = TipAdapter(tiny.clip(), tiny.task(), Config(search_scale=(7.0, 3.0), search_step=(betas, alphas)))
    model.fill([torch.randn(8, tiny.clip().embed_dim, generator=model.rng("keys"))], torch.arange(8) % 4)
    return model


# ---- parameters, names, sentences


@examples(60)
@given(st.lists(st.integers()) | st.lists(st.booleans()) | st.lists(st.floats(allow_nan=False)), st.data())
def test_a_value_written_as_text_is_the_value(values, data):
    kind = list[type(values[0])] if values else list[int]
    written = yaml.safe_dump(values, default_flow_style=True, width=10**6).strip()
    assert coerce("x", written, kind) == coerce("x", values, kind) == values


@examples(60)
@given(st.text(), st.lists(st.text(min_size=1), max_size=5))
def test_an_unknown_name_gets_one_line_and_a_suggestion_that_exists(name, known):
    error = unknown("thing", name, known)
    assert sentence(error)
    if "did you mean" in str(error):
        assert any(str(error).endswith(on_one_line(f"did you mean {one!r}?")) for one in known)
    assert on_one_line(on_one_line(name)) == on_one_line(name)


# ---- bytes of all kinds


def sentence(error: FewshotError) -> bool:
    text = str(error)
    text.encode()
    return "\n" not in text and "Traceback" not in text and text.endswith((".", "?"))


def pictures() -> list[bytes]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    found = []
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM"):
        stream = io.BytesIO()
        picture.save(stream, kind)
        found.append(stream.getvalue())
    return found


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> bytes:
    import fewshot

    path = tmp_path_factory.mktemp("saved") / "m.safetensors"
    return fewshot.fit("gda", tiny.clip(), tiny.task(), augment_epoch=1).save(path).read_bytes()


DAMAGE = st.tuples(
    st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6)
)


def damaged(whole: bytes, damage, reach: int) -> bytes:
    """Cut off and with some bytes changed, most of them at the beginning, where formats say what they are."""
    share, changes = damage
    data = bytearray(whole[: round(share * len(whole))] if share < 0.5 else whole)
    for place, value in changes:
        if data:
            data[int(place * min(len(data), reach))] = value
    return bytes(data)


@examples(150)
@given(st.sampled_from(pictures()), DAMAGE)
def test_a_damaged_picture_is_a_picture_or_a_sentence(whole, damage):
    with fresh("a.jpg") as path:
        path.write_bytes(damaged(whole, damage, 64))
        for upright in (False, True):
            images = ImageFiles(path.parent, ["a.jpg"], [0], upright=upright)
            try:
                images.check_headers()
                assert images.pil(0).mode == "RGB"
            except FewshotError as error:
                assert sentence(error) and "a.jpg" in str(error)


@examples(80)
@given(damage=DAMAGE)
def test_a_damaged_model_is_a_model_or_a_sentence(saved, damage):
    with fresh("m.safetensors") as path:
        path.write_bytes(damaged(saved, damage, 900))
        try:
            load_method(path, tiny.clip())
        except FewshotError as error:
            assert sentence(error)


@examples(50)
@given(damage=DAMAGE, name=st.sampled_from(["a.pt", "a.safetensors"]))
def test_damaged_weights_are_weights_or_a_sentence(whole_weights, damage, name):
    with fresh(name) as path:
        path.write_bytes(damaged(whole_weights[Path(name).suffix], damage, 400))
        try:
            read_state_dict(path)
        except FewshotError as error:
            assert sentence(error)


@pytest.fixture(scope="module")
def whole_weights() -> dict[str, bytes]:
    from safetensors.torch import save

    state = {"a": torch.zeros(3, 2), "b": torch.ones(4)}
    stream = io.BytesIO()
    torch.save(state, stream)
    return {".pt": stream.getvalue(), ".safetensors": save(state)}


@examples(80)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_a_profile_or_a_sentence(text):
    with fresh("p.yaml") as path:
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        try:
            load_profile(path)
        except FewshotError as error:
            assert sentence(error)


@examples(60)
@given(st.lists(st.dictionaries(st.sampled_from(["path", "label", "class", "part", "shots", "x"]), JSON), max_size=3))
def test_any_lines_are_a_split_or_a_sentence(lines):
    dataset = tiny.dataset(32)
    with fresh("s.jsonl") as path:
        path.write_text("\n".join(map(json.dumps, lines)))
        try:
            import_split(path, dataset)
        except FewshotError as error:
            assert sentence(error)


# ---- a folder for every example


class fresh:
    """A path in a folder of its own, which goes away."""

    def __init__(self, name: str):
        self.name = name

    def __enter__(self) -> Path:
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        return Path(self.folder.name) / self.name

    def __exit__(self, *_) -> None:
        self.folder.cleanup()


def sorted_file(path: Path) -> Rows:
    rows = Rows(path)
    rows.tidy()
    return Rows(path)
