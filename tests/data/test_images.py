"""Every odd picture file that people have comes out as upright 8-bit RGB, or is named as broken."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyramidvit.data import images
from pyramidvit.data.images import BrokenImage, read_image, read_small_image
from pyramidvit.data.layouts import read_size

RAMP = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)  # [H, W]


def read_array(path: Path) -> np.ndarray:
    image = read_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_a_grey_picture_gets_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    pixels = read_array(tmp_path / "grey.png")
    assert pixels.shape == (6, 8, 3)
    assert (pixels == RAMP[..., None]).all()


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert (read_array(tmp_path / "deep.png")[..., 0] == RAMP).all()


@pytest.mark.parametrize("factor", [1.0, 1 / 255, 257.0])
def test_float_tiffs_in_the_usual_ranges_are_scaled(tmp_path: Path, factor: float) -> None:
    Image.fromarray((RAMP * factor).astype(np.float32)).save(tmp_path / "float.tif")
    assert (read_array(tmp_path / "float.tif")[..., 0] == RAMP).all()


def test_numbers_outside_every_known_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP.astype(np.float32) - 100).save(tmp_path / "odd.tif")
    with pytest.raises(BrokenImage, match="neither 8- nor 16-bit"):
        read_image(tmp_path / "odd.tif")


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[..., 0] = 200
    pixels[:2, :, 3] = 255  # upper half opaque red, lower half invisible
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    read = read_array(tmp_path / "rgba.png")
    assert (read[:2] == (200, 0, 0)).all()
    assert (read[2:] == 255).all()


def test_large_pictures_are_turned_into_rgb_band_by_band(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "rgba.png")
    deep = np.random.default_rng(1).integers(0, 65536, (13, 7), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    whole = [read_array(tmp_path / name) for name in ("rgba.png", "deep.png")]
    monkeypatch.setattr(images, "AT_ONCE", 20)  # two rows
    bands = [read_array(tmp_path / name) for name in ("rgba.png", "deep.png")]
    assert all((a == b).all() for a, b in zip(whole, bands, strict=True))
    assert (bands[1][..., 0] == np.round(deep / 257)).all()


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((0, 0), 1)
    image.save(tmp_path / "palette.png", transparency=0)
    read = read_array(tmp_path / "palette.png")
    assert tuple(read[0, 0]) == (40, 50, 60)
    assert tuple(read[1, 1]) == (255, 255, 255)


def test_a_photograph_is_turned_as_its_exif_record_says(tmp_path: Path) -> None:
    upright = np.zeros((40, 80, 3), np.uint8)
    upright[:, :40] = 255  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(upright).copy())
    stored.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    read = read_array(tmp_path / "turned.jpg")
    assert read.shape == (40, 80, 3)
    assert read[:, :35].mean() > 240
    assert read[:, 45:].mean() < 15


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_photograph_is_decoded_no_further_than_asked(tmp_path: Path, mode: str) -> None:
    ramp = np.linspace(0, 255, 1600)[None, :] * np.linspace(0, 1, 1200)[:, None]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(ramp.astype(np.uint8)).convert(mode).save(tmp_path / "a.jpg", exif=exif)
    whole, size = read_small_image(tmp_path / "a.jpg", 0)
    assert (whole.size, size) == ((1200, 1600), (1600, 1200))
    for side, found in ((250, (300, 400)), (301, (600, 800)), (2000, (1200, 1600))):
        small, size = read_small_image(tmp_path / "a.jpg", side)
        assert (small.mode, small.size, size) == ("RGB", found, (1600, 1200))
        shrunk = np.asarray(whole.resize(found, Image.Resampling.BOX), float)
        assert np.abs(np.asarray(small, float) - shrunk).mean() < 2


def test_a_cut_photograph_is_broken_however_little_of_it_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)).save(
        tmp_path / "a.jpg"
    )
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(BrokenImage, match="truncated"):
        read_small_image(tmp_path / "a.jpg", 50)


def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert (read_array(tmp_path / "moving.gif") == (255, 0, 0)).all()


def test_cmyk_and_one_bit_pictures_are_read(tmp_path: Path) -> None:
    Image.new("CMYK", (5, 5), (0, 0, 0, 0)).save(tmp_path / "print.jpg")
    Image.new("1", (5, 5), 1).save(tmp_path / "fax.png")
    assert read_array(tmp_path / "print.jpg").min() > 250
    assert read_array(tmp_path / "fax.png").min() == 255


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty file"), (b"not a picture", "not a picture"), (None, "no such file")],
)
def test_a_file_that_is_no_picture_is_named_with_the_reason(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "x.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BrokenImage) as caught:
        read_image(path)
    assert caught.value.path == str(path)
    assert reason in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".gif", ".tif"])
def test_a_truncated_file_is_broken_and_not_half_read(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    Image.fromarray(noise).save(whole)
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(BrokenImage):
        read_image(cut)
    assert read_image(whole).size == (64, 64)


def test_the_head_of_a_large_picture_is_read_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (5, 8)).save(tmp_path / "a.png")
    for limit in (19, 39):  # of which Pillow refuses the double, and warns of itself
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_size(tmp_path / "a.png") == (8, 5)
    assert not recwarn.list
