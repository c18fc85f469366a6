"""Curves of sixteen methods: each has a look of its own, few stand in front, and names do not cover each other."""

from __future__ import annotations

import colorsys
import hashlib
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from test_report import FOOD, PETS, ROWS, frame

from fewshot.curves import FAMILIES, OTHERS, WIDTH, family_curves, look, shot_curves, spread
from fewshot.errors import FewshotError
from fewshot.methods import METHODS
from fewshot.published import published
from fewshot.report import TITLES, as_rows, averaged, save

TRAINED = [name for name in METHODS if name != "zero_shot"]


def rows(datasets=("toy/a",), methods=TRAINED, shots=(1, 4, 16)):
    """Close together, as they are: two points between the first and the last method."""
    lines = [("zero_shot", d, 0, 1, 50.0) for d in datasets]
    lines += [
        (m, d, k, seed, 60.0 + k + 2 * i / len(methods) + seed / 10)
        for d in datasets for i, m in enumerate(methods) for k in shots for seed in (1, 2)
    ]  # fmt: skip
    return frame(*lines)


def named(axis) -> dict:
    return {line.get_label(): line for line in axis.lines if not line.get_label().startswith("_")}


def grey(axis) -> list:
    return [line for line in axis.lines if line.get_label() == "_other"]


# Looks


def test_every_trained_method_has_one_look_which_colour_or_marker_and_dashes_tell_from_the_others():
    assert set(TRAINED) <= {m for members in FAMILIES.values() for m in members}
    looks = [look(name) for name in TRAINED]
    assert len({one.colour for one in looks}) == len(looks)
    assert len({(str(one.marker), str(one.dashes)) for one in looks}) == len(looks)
    for members in FAMILIES.values():
        within = [look(name) for name in members]
        assert len({str(one.marker) for one in within}) == len({str(one.dashes) for one in within}) == len(within)


def hue(colour: str) -> float:
    return 360 * colorsys.rgb_to_hsv(*to_rgb(colour))[0]


def contrast(colour: str) -> float:
    """With white, as the web's accessibility guidelines define it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 1.05 / (0.05 + float(np.dot([0.2126, 0.7152, 0.0722], linear)))


def test_a_family_is_a_range_of_hues_and_every_line_stands_out_from_the_page():
    ranges = sorted(
        (min(hues), max(hues))
        for members in FAMILIES.values()
        for hues in [[hue(colour) for colour, _ in members.values()]]
    )
    assert all(before[1] + 10 < after[0] for before, after in itertools.pairwise(ranges))
    colours = [look(name).colour for name in TRAINED]
    assert min(map(contrast, colours)) > 2.8 > 2 > contrast(OTHERS)


def test_a_method_looks_the_same_whatever_stands_beside_it():
    alone = shot_curves(ROWS[ROWS["method"] == "clip_lora"]).axes[0].lines[0]
    assert (alone.get_color(), alone.get_marker()) == look("clip_lora")[:2]
    assert look("a method of yours").colour == "#000000"


# A panel per data set


def test_curves_have_a_panel_per_data_set_with_the_methods_by_name():
    figure = shot_curves(ROWS, published("clip_lora"))
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert set(panels) == {PETS, FOOD}
    lines = named(panels[PETS])
    assert set(lines) == {"CoOp", "CLIP-LoRA", "Zero-shot CLIP"}
    assert list(lines["CoOp"].get_xdata()) == [1, 4] and list(lines["CoOp"].get_ydata()) == [62.0, 72.0]
    assert lines["Zero-shot CLIP"].get_ydata()[0] == 50.0
    assert {text.get_text() for text in figure.legends[0].texts} == {*lines, "published (hollow)"}


def test_what_is_not_in_front_is_a_grey_line_without_a_name():
    front = ["tip_adapter_f", "coop", "maple"]
    figure = shot_curves(rows(("toy/a", "toy/b")), highlight=front)
    for axis in figure.axes:
        assert set(named(axis)) == {TITLES[m] for m in front} | {"Zero-shot CLIP"}
        behind = grey(axis)
        assert len(behind) == len(TRAINED) - len(front)
        assert all(line.get_color() == OTHERS and line.get_marker() == "None" for line in behind)
        assert max(line.zorder for line in behind) < named(axis)["CoOp"].zorder
    assert "the other methods" in {text.get_text() for text in figure.legends[0].texts}
    every = shot_curves(rows())
    assert not grey(every.axes[0]) and "the other methods" not in {t.get_text() for t in every.legends[0].texts}


def test_methods_to_highlight_that_are_not_there_are_no_error():
    figure = shot_curves(ROWS, highlight=["gda", "coop"])
    assert set(named(figure.axes[1])) == {"CoOp", "Zero-shot CLIP"}


@pytest.mark.parametrize("count", [1, 2, 3, 11])
def test_a_figure_is_as_wide_as_a_page_and_its_legend_stays_inside(count):
    figure = shot_curves(rows([f"toy/{i}" for i in range(count)]))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and figure.get_figwidth() <= WIDTH
    assert len([axis for axis in figure.axes if axis.get_visible()]) == count


def test_without_a_row_there_is_nothing_to_draw():
    for draw in (shot_curves, family_curves):
        with pytest.raises(FewshotError, match="no row to draw"):
            draw(ROWS.head(0))


# A panel per family


def test_a_panel_per_family_shows_its_members_in_front_of_all_others():
    figure = family_curves(averaged(rows(("toy/a", "toy/b"))))
    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_visible()}
    assert list(panels) == [name for name, members in FAMILIES.items() if set(members) & set(TRAINED)]
    for family, axis in panels.items():
        titles = [TITLES[m] for m in FAMILIES[family]]
        assert set(named(axis)) == {*titles, "Zero-shot CLIP"} and len(grey(axis)) == len(TRAINED) - len(titles)
        assert {text.get_text() for text in axis.texts} == set(named(axis))
    assert figure._suptitle.get_text() == "average of 2 data sets (a, b), toy world"
    assert len({axis.get_ylim() for axis in panels.values()}) == 1


def test_names_at_the_ends_stand_apart_inside_the_figure_and_in_the_order_of_the_lines():
    figure = family_curves(rows())
    figure.draw_without_rendering()
    for axis in filter(lambda one: one.get_visible(), figure.axes):
        boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda box: box.y0)
        assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
        assert all(0 <= box.x0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height for box in boxes)
        heights = {text.get_text(): text.get_position()[1] for text in axis.texts}
        ends = {name: line.get_ydata()[-1] for name, line in named(axis).items()}
        assert sorted(heights, key=heights.get) == sorted(ends, key=ends.get)
        assert all(text.get_color() == named(axis)[text.get_text()].get_color() for text in axis.texts)


def test_families_without_a_row_have_no_panel_and_strangers_get_one():
    figure = family_curves(rows(methods=["coop", "clip_lora", "mine"]))
    assert [axis.get_title() for axis in figure.axes if axis.get_visible()] == ["prompts", "low rank", "other methods"]
    only = family_curves(rows()[lambda f: f["method"] == "zero_shot"])
    assert set(named(only.axes[0])) == {"Zero-shot CLIP"}


def test_several_data_sets_in_one_figure_of_families_are_refused():
    with pytest.raises(FewshotError, match="shows one data set; average the rows first"):
        family_curves(rows(("toy/a", "toy/b")))


def test_published_curves_say_so():
    real = as_rows(published("clip_lora"))
    for figure in (shot_curves(real), family_curves(real[real["dataset"] == "average"])):
        assert "published" in figure._suptitle.get_text()


# What both rest on


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([3.0, 9.0], [3.0, 9.0]),
        ([5.0, 5.0, 5.0], [4.0, 5.0, 6.0]),
        ([5.0, 5.2, 7.0], [4.6, 5.6, 7.0]),
        ([1.0, 5.0, 5.5, 6.2], [1.0, 4.57, 5.57, 6.57]),
        ([0.0, 0.1, 10.0, 10.0], [0.0, 1.0, 9.0, 10.0]),
    ],
)
def test_names_move_as_little_as_possible(values, expected):
    assert spread(values, 1.0, 0.0, 10.0) == pytest.approx(expected, abs=0.01)


def test_an_svg_is_the_same_bytes_twice(tmp_path):
    for draw in (shot_curves, family_curves):
        hashes = []
        for name in ("a.svg", "b.svg"):
            save(draw(rows()), tmp_path / "new" / name)
            hashes.append(hashlib.sha256((tmp_path / "new" / name).read_bytes()).hexdigest())
        assert hashes[0] == hashes[1] and b"<dc:date>" not in (tmp_path / "new" / "a.svg").read_bytes()
