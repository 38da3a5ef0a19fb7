"""Videos: read and written frame by frame."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyramidvit.data.images import BrokenImage
from pyramidvit.data.picture_list import list_media, list_pictures
from pyramidvit.data.video import check_reader, is_video, open_clip, read_frames
from pyramidvit.data.video_output import write_video
from pyramidvit.errors import UserError

BRIGHTNESS = (10, 90, 170, 250)


def write_clip(path: Path, size: tuple[int, int] = (48, 33), count: int = 4) -> Path:
    """A video of (width, height) whose frames are ever brighter, shown for 0.2 seconds each."""
    with write_video(path, Fraction(5)) as add:
        for number in range(count):
            add(Image.new("RGB", size, (BRIGHTNESS[number],) * 3), 0.2)
    return path


@pytest.fixture(params=["clip.gif", "clip.mp4"])
def clip(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param.endswith("mp4"):
        pytest.importorskip("av")
    return write_clip(tmp_path / request.param)


def test_what_is_written_is_read_again(clip: Path) -> None:
    assert is_video(clip)
    opened = open_clip(clip)
    frames = list(read_frames(opened))
    assert opened.count == 4
    assert [frame.number for frame in frames] == [0, 1, 2, 3]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6])
    assert [frame.duration for frame in frames] == pytest.approx([0.2] * 4)
    for frame, value in zip(frames, BRIGHTNESS, strict=True):
        height = 33 if clip.suffix == ".gif" else 34  # an mp4's sides are even
        assert frame.picture.size == (48, height)
        assert np.abs(np.asarray(frame.picture, int) - value).max() <= 4
    assert [path.name for path in clip.parent.iterdir()] == [clip.name]


def test_an_mp4_keeps_the_rate(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with write_video(tmp_path / "film.mp4", Fraction(30000, 1001)) as add:
        for _ in range(3):
            add(Image.new("RGB", (32, 32)), 0)
    assert open_clip(tmp_path / "film.mp4").rate == Fraction(30000, 1001)


def test_colours_of_a_gif_are_each_frames_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ramps = [np.zeros((20, 30, 3), np.uint8) for _ in range(3)]
    for channel, pixels in enumerate(ramps):
        pixels[..., channel] = rng.integers(0, 256, (20, 30))
    with write_video(tmp_path / "a.gif", Fraction(1)) as add:
        for pixels in ramps:
            add(Image.fromarray(pixels), 1.0)
    for frame, pixels in zip(read_frames(open_clip(tmp_path / "a.gif")), ramps, strict=True):
        assert np.abs(np.asarray(frame.picture, int) - pixels).max() <= 4


def test_pictures_of_other_sizes_are_fitted(tmp_path: Path) -> None:
    with write_video(tmp_path / "a.gif", Fraction(1)) as add:
        for size in ((10, 8), (20, 16)):
            add(Image.new("RGB", size), 0.1)
    sizes = {frame.picture.size for frame in read_frames(open_clip(tmp_path / "a.gif"))}
    assert sizes == {(10, 8)}


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_what_is_cut_off_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("av")

    def cut_off() -> None:
        with write_video(tmp_path / f"a{suffix}", Fraction(5)) as add:
            add(Image.new("RGB", (32, 32)), 0.2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    with write_video(tmp_path / f"b{suffix}", Fraction(5)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_video_gives_the_frames_before_the_damage(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.gif", size=(300, 200))
    path.write_bytes(path.read_bytes()[:-60])
    clip = open_clip(path)
    frames = read_frames(clip)
    seen = [next(frames).number for _ in range(clip.count - 1)]
    assert seen == list(range(clip.count - 1))
    with pytest.raises(BrokenImage) as caught:
        next(frames)
    assert caught.value.path == str(path)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 100])
@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_what_is_no_video_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    pytest.importorskip("av")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BrokenImage) as caught:
        open_clip(tmp_path / name)
    assert caught.value.reason
    assert str(tmp_path) not in caught.value.reason


def test_a_sound_file_has_no_pictures(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(BrokenImage, match="no pictures in it"):
        open_clip(tmp_path / "a.mp4")


def test_without_pyav_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    check_reader([tmp_path / "a.gif"])
    with pytest.raises(UserError, match=r"clip.mp4 .*pip install 'pyramidvit\[video\]'"):
        check_reader([tmp_path / "a.gif", tmp_path / "clip.mp4"])


def test_videos_stand_apart_from_pictures(tmp_path: Path) -> None:
    write_clip(tmp_path / "moving.gif")
    Image.new("RGB", (8, 8)).save(tmp_path / "still.gif")
    (tmp_path / "film.MOV").write_bytes(b"")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    media = list_media([str(tmp_path), str(tmp_path / "still.gif")])
    assert [path.name for path in media.pictures.files] == ["broken.gif", "still.gif"]
    assert [path.name for path in media.videos] == ["moving.gif", "film.MOV"]
    assert len(list_pictures([str(tmp_path)])) == 3  # a GIF's first frame
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        list_media([str(tmp_path / "empty")])
