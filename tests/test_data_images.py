"""Pictures arrive as RGB whatever the file holds, and a bad file is named."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from fewshot.data.images import ImageArrays, ImageFiles
from fewshot.errors import FewshotError


def noise(size=(20, 16), mode="RGB", seed=0):
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    return picture.convert(mode)


def files(folder, **pictures):
    for name, picture in pictures.items():
        picture.save(folder / f"{name}.png")
    names = [f"{name}.png" for name in pictures]
    return ImageFiles(folder, names, range(len(names)))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA"])
def test_every_8_bit_mode_arrives_as_rgb(tmp_path, mode):
    picture = noise(mode=mode)
    images = files(tmp_path, a=picture)
    images.check_headers()
    assert images.pil(0).mode == "RGB"
    assert np.array_equal(images.pil(0), picture.convert("RGB"))


def test_exif_orientation_is_applied_to_own_pictures_alone(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to display"
    noise((20, 16)).save(tmp_path / "a.jpg", exif=exif)
    stored = ImageFiles(tmp_path, ["a.jpg"], [0])
    upright = ImageFiles(tmp_path, ["a.jpg"], [0], upright=True)
    assert stored.pil(0).size == (20, 16)
    for images in (upright, upright.subset([0]), upright.relabel([1])):
        assert images.pil(0).size == (16, 20)
    assert upright.fingerprint != stored.fingerprint


def test_16_bit_greyscale_is_scaled_where_its_range_is_known_and_else_refused_not_clipped(tmp_path):
    grey = np.asarray(noise().convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    scaled = ImageFiles(tmp_path, ["deep.png"], [0])
    scaled.check_headers()
    assert np.array_equal(scaled.pil(0), Image.fromarray(grey).convert("RGB"))
    Image.new("I;16", (8, 8), 3000).save(tmp_path / "deep.tif")
    images = ImageFiles(tmp_path, ["deep.tif"], [0])
    for read in (images.check_headers, lambda: images.pil(0)):
        with pytest.raises(FewshotError, match="deep.tif has more than 8 bits"):
            read()


def test_an_empty_file_a_text_file_and_a_missing_file_are_named(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("no picture")
    for name, why in (("empty.jpg", "0 bytes"), ("text.jpg", "10 bytes"), ("gone.jpg", "does not exist")):
        images = ImageFiles(tmp_path, [name], [0])
        with pytest.raises(FewshotError, match=f"{name}.*{why}"):
            images.check_headers()
        with pytest.raises(FewshotError, match=f"{name}.*{why}"):
            images.pil(0)


def test_a_truncated_picture_is_named_when_it_is_decoded(tmp_path):
    stream = io.BytesIO()
    noise((64, 64)).save(stream, "JPEG")
    (tmp_path / "half.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    images = ImageFiles(tmp_path, ["half.jpg"], [0])
    images.check_headers()  # the header is whole
    with pytest.raises(FewshotError, match="half.jpg cannot be read: .*truncated.*; replace or remove it"):
        images.pil(0)


def test_subsets_keep_order_ids_and_content(tmp_path):
    from_files = files(tmp_path, a=noise(seed=1), b=noise(seed=2), c=noise(seed=3))
    pixels = np.stack([np.asarray(from_files.pil(i)).transpose(2, 0, 1) for i in range(3)])
    for images in (from_files, ImageArrays(pixels, range(3), from_files.ids)):
        picked = images.subset([2, 0])
        assert picked.ids == ("c.png", "a.png")
        assert picked.labels.tolist() == [2, 0]
        assert np.array_equal(picked.pil(0), from_files.pil(2))
        assert images.subset(np.array([False, True, False])).ids == ("b.png",)
        assert len(images.subset([])) == 0
        assert images.relabel([5, 6, 7]).subset([1]).labels.tolist() == [6]


def test_the_fingerprint_of_arrays_follows_pixels_labels_and_ids():
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    other = pixels.copy()
    other[1, 2, 3, 3] = 1
    kinds = [
        ImageArrays(pixels, [0, 1]),
        ImageArrays(other, [0, 1]),
        ImageArrays(pixels, [1, 0]),
        ImageArrays(pixels, [0, 1], ["x", "y"]),
        ImageArrays(pixels[:, :, :2], [0, 1]),
    ]
    prints = [images.fingerprint for images in kinds]
    assert len(set(prints)) == len(prints)
    assert ImageArrays(pixels.copy(), [0, 1]).fingerprint == prints[0]
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


def test_the_fingerprint_of_files_notices_an_edit_that_keeps_the_size(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.bmp")
    os.utime(tmp_path / "a.bmp", (1, 1))
    before, again = (ImageFiles(tmp_path, ["a.bmp"], [0]).fingerprint for _ in range(2))
    assert before == again
    Image.new("RGB", (8, 8), "blue").save(tmp_path / "a.bmp")
    assert ImageFiles(tmp_path, ["a.bmp"], [0]).fingerprint != before


def test_file_names_that_are_no_unicode_have_a_fingerprint(tmp_path):
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9.png")
    stream = io.BytesIO()
    noise().save(stream, "PNG")
    try:
        with open(path, "wb") as file:
            file.write(stream.getvalue())
    except OSError:
        pytest.skip("this file system only takes Unicode names")
    images = ImageFiles(tmp_path, [os.fsdecode(b"caf\xe9.png")], [0])
    assert len(images.fingerprint) == 16 and images.pil(0).size == (20, 16)


def test_wrong_pixels_and_label_counts_are_named():
    with pytest.raises(FewshotError, match=r"uint8 \[N,3,H,W\], not float64 \[2, 3, 4, 4\]"):
        ImageArrays(np.zeros((2, 3, 4, 4)), [0, 1])
    with pytest.raises(FewshotError, match="2 pictures need as many labels"):
        ImageArrays(np.zeros((2, 3, 4, 4), np.uint8), [0])
