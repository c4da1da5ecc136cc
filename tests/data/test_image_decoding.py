"""What becomes of image files as people have them: each is read as it is meant, or refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regbench import data
from regbench.data.image_decoding import Unusable, decode
from regbench.errors import UserError

SIDE = 32
RAMP = np.tile(np.linspace(0, 1, SIDE), (SIDE, 1))  # black on the left, white on the right
GREY8 = np.rint(255 * RAMP).astype(np.uint8)
GREY16 = np.rint(65535 * RAMP).astype(np.uint16)
SHAPE = np.where(np.hypot(*np.mgrid[-15.5:16, -15.5:16]) < 9, 255, 0).astype(np.uint8)  # a disc
LEFT = np.where(np.arange(SIDE) < SIDE // 2, 255, 0)[None].repeat(SIDE, 0).astype(np.uint8)


def grey(path: Path) -> np.ndarray:
    """The decoded image, which is to be grey, as [32, 32]."""
    pixels = decode(path).pixels.astype(int)
    assert pixels.shape == (3, SIDE, SIDE)
    assert np.abs(pixels - pixels[:1]).max() <= 3
    return pixels[0]


def put(path: Path, what: bytes | np.ndarray | Image.Image, **options: object) -> Path:
    if isinstance(what, bytes):
        path.write_bytes(what)
    else:
        (Image.fromarray(what) if isinstance(what, np.ndarray) else what).save(path, **options)
    return path


def pgm(maximum: int) -> bytes:
    return f"P5 32 32 {maximum}\n".encode() + np.rint(maximum * RAMP).astype(">u2").tobytes()


def tiff(pixels: bytes, bits: int, photometric: int = 1, sample: int = 1, order: str = "<") -> bytes:
    """A TIFF of one uncompressed grey strip, with tags that Pillow does not write."""
    entries = [(256, 4, SIDE), (257, 4, SIDE), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 200),
               (277, 3, 1), (278, 4, SIDE), (279, 4, len(pixels)), (339, 3, sample)]  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries))
    for tag, kind, value in entries:
        head += struct.pack(f"{order}HHI", tag, kind, 1) + struct.pack(f"{order}{'H2x' if kind == 3 else 'I'}", value)
    return head.ljust(200, b"\0") + pixels


def twelve_bits() -> bytes:
    a, b = np.rint(4095 * RAMP).astype(int).reshape(-1, 2).T
    return np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], 1).astype(np.uint8).tobytes()


RAMPS = {
    "8.png": GREY8,
    "16.png": GREY16,
    "16.tif": GREY16,
    "big_endian.tif": tiff(GREY16.astype(">u2").tobytes(), 16, order=">"),
    "white_is_zero.tif": tiff((65535 - GREY16).tobytes(), 16, photometric=0),
    "12.tif": tiff(twelve_bits(), 12),
    "16.pgm": pgm(65535),
    "12.pgm": pgm(4095),
    "float.tif": RAMP.astype(np.float32),
    "8.jpg": GREY8,
    "8.webp": GREY8,
    "palette.png": Image.fromarray(GREY8).convert("P"),
    "cmyk.jpg": Image.merge("CMYK", [Image.new("L", (SIDE, SIDE))] * 3 + [Image.fromarray(255 - GREY8)]),
    "cmyk.tif": Image.merge("CMYK", [Image.new("L", (SIDE, SIDE))] * 3 + [Image.fromarray(255 - GREY8)]),
    "ycbcr.tif": Image.fromarray(GREY8).convert("YCbCr"),
    "opaque.png": Image.fromarray(np.dstack([GREY8] * 3 + [np.full_like(GREY8, 255)])),
}  # fmt: skip


def test_a_ramp_from_black_to_white_is_one_whatever_its_bits_and_colours(tmp_path):
    for name, what in RAMPS.items():
        options = {"quality": 100} if name.endswith((".jpg", ".webp")) else {}
        assert np.abs(grey(put(tmp_path / name, what, **options)) - GREY8).max() <= 3, name


def test_colours_of_sixteen_bits_are_scaled(tmp_path):
    """Pillow writes none: red, half of it, and with an alpha that leaves half of the white below."""
    for kind, pixel, expected in (
        (2, (65535, 32768, 0), (255, 128, 0)),
        (6, (65535, 0, 0, 32768), (255, 127, 127)),
        (4, (0, 65535), (0, 0, 0)),
    ):
        rows = b"".join(b"\0" + struct.pack(f">{len(pixel)}H", *pixel) * SIDE for _ in range(SIDE))
        path = put(tmp_path / f"{kind}.png", png(16, kind, rows))
        assert np.abs(decode(path).pixels[:, 5, 5].astype(int) - expected).max() <= 1, kind


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(bits: int, kind: int, rows: bytes, after: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + after + chunk(b"IEND", b"")


def test_what_is_transparent_shows_white(tmp_path):
    nothing = np.zeros_like(SHAPE)
    indices = Image.fromarray((SHAPE > 0).astype(np.uint8)).convert("P")
    indices.putpalette([255, 0, 0, 0, 0, 0])  # red, made transparent, and black
    key = Image.fromarray(np.dstack([np.where(SHAPE, 0, 9).astype(np.uint8)] * 3))
    cases = {
        "rgba.png": (Image.fromarray(np.dstack([nothing] * 3 + [SHAPE])), {}),
        "la.png": (Image.fromarray(np.dstack([nothing, SHAPE])), {}),
        "rgba.tif": (Image.fromarray(np.dstack([nothing] * 3 + [SHAPE])), {}),
        "rgba.webp": (Image.fromarray(np.dstack([nothing] * 3 + [SHAPE])), {"lossless": True}),
        "index.png": (indices, {"transparency": 0}),
        "bytes.png": (indices, {"transparency": b"\0\xff"}),
        "gif.png": (indices, {"format": "GIF", "transparency": 0}),
        "key.png": (key, {"transparency": (9, 9, 9)}),
        "grey_key.png": (key.convert("L"), {"transparency": 9}),
        "deep_key.png": (Image.fromarray(np.where(SHAPE, 0, 999).astype(np.uint16)), {"transparency": 999}),
    }
    for name, (image, options) in cases.items():
        assert np.array_equal(grey(put(tmp_path / name, image, **options)), 255 - SHAPE), name
    # an alpha that is nothing throughout was left empty by the program that wrote it
    empty = Image.fromarray(np.dstack([GREY8] * 3 + [nothing]))
    assert np.array_equal(grey(put(tmp_path / "empty.png", empty)), GREY8)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    """As cameras and phones store them: the bright half is on top once it is turned."""
    upright = Image.fromarray(LEFT.T)
    stored = {1: upright, 3: upright.rotate(180), 6: upright.rotate(90), 8: upright.rotate(-90)}
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        for ending in ("jpg", "png", "webp", "tif"):
            options = {"quality": 100} if ending in ("jpg", "webp") else {}
            found = grey(put(tmp_path / f"{orientation}.{ending}", image, exif=exif, **options))
            assert np.abs(found - LEFT.T).max() < 30, (orientation, ending)
    # a tag that is damaged turns nothing, and is no reason to refuse the picture
    found = grey(put(tmp_path / "damaged.jpg", upright, exif=b"Exif\0\0II*\0\xff\xff\xff\xff rubbish", quality=100))
    assert np.abs(found - LEFT.T).max() < 30


def test_of_several_frames_the_first_is_taken_and_told(tmp_path):
    frames = [Image.fromarray(GREY8), *(Image.new("L", (SIDE, SIDE), 10 * i) for i in range(3))]
    animated = {"save_all": True, "append_images": frames[1:]}
    for name, options in (
        ("a.tif", animated),
        ("gif.png", animated | {"format": "GIF"}),
        ("apng.png", animated),
        ("a.webp", animated | {"lossless": True}),
    ):
        path = put(tmp_path / name, frames[0], **options)
        assert decode(path).frames, name
        assert np.array_equal(grey(path), GREY8), name
    assert not decode(put(tmp_path / "one.png", frames[0])).frames
    # a camera's second picture is the first one again
    assert not decode(put(tmp_path / "camera.jpg", frames[0], format="MPO", **animated)).frames


def test_any_size_of_any_format_under_any_name(tmp_path):
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    for size in ((1, 1), (1, 5000), (5000, 1), (33, 31), (3000, 2)):
        assert np.array_equal(decode(put(tmp_path / "a.png", red.resize(size))).pixels[:, 9, 9], (255, 0, 0))
    for format in ("GIF", "AVIF", "JPEG2000", "TGA", "PCX", "ICO", "BMP", "PPM", "PNG", "SGI"):
        path = put(tmp_path / "b.jpg", red.resize((SIDE, SIDE)), format=format)
        assert np.abs(decode(path).pixels.astype(int).mean((1, 2)) - (255, 0, 0)).max() < 9, format


REFUSED = {
    "empty.png": (b"", "it is empty"),
    "text.jpg": (b"<html>404</html>", "no format that Pillow knows"),
    "floats.tif": (200 * RAMP.astype(np.float32), r"floats go from 0 to 200, accepted: 0 to 1; save"),
    "negative.tif": (RAMP.astype(np.float32) - 0.5, r"floats go from -0\.5 to 0\.5"),
    "nan.tif": (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "floats go from nan"),
    "signed.tif": (tiff(GREY16.astype("<i2").tobytes(), 16, sample=2), "signed or of 32 bits"),
    "32.tif": (GREY16.astype(np.int32), "signed or of 32 bits"),
    "iccp.png": (
        png(8, 0, b"".join(bytes(SIDE + 1) for _ in range(SIDE)), chunk(b"iCCP", b"")),
        "not a readable image",
    ),
    "rows.png": (png(8, 0, b"too few"), "not a readable image"),
}


def test_what_is_no_image_is_refused_by_a_reason(tmp_path):
    for name, (what, reason) in REFUSED.items():
        with pytest.raises(Unusable, match=reason):
            decode(put(tmp_path / name, what))


def test_whatever_is_damaged_is_an_image_or_refused(tmp_path):
    """Pillow raises RuntimeError, IndexError, struct.error and more: none of them gets out."""
    random, image, refused = np.random.default_rng(0), Image.fromarray(np.dstack([GREY8, GREY8.T, SHAPE])), 0
    path = tmp_path / "a.jpg"
    for format in ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP", "ICO"):
        file = io.BytesIO()
        image.save(file, format, **({"compression": "tiff_lzw"} if format == "TIFF" else {}))
        for _ in range(25):
            content = bytearray(file.getvalue())
            if random.random() < 0.3:
                del content[random.integers(1, len(content)) :]
            for place in random.integers(0, min(len(content), 500), 3):
                content[place] ^= random.integers(1, 256)
            path.write_bytes(content)
            try:
                assert decode(path).pixels.shape == (3, SIDE, SIDE)
            except Unusable:
                refused += 1
    assert refused > 50


def folder_of(root: Path, count: int = 2) -> Path:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            (root / part / label).mkdir(parents=True)
            for i in range(count):
                put(root / part / label / f"{i}.png", GREY8 if part == "train" else GREY8.T)
    return root


def test_all_files_that_are_of_no_use_are_told_at_once(tmp_path):
    root = folder_of(tmp_path / "pets")
    (root / "train" / "cat" / "a\n\x1b.png").write_bytes(b"")
    (root / "train" / "dog" / "b.jpg").symlink_to("nowhere")
    (root / "train" / "dog" / "c.jpg").symlink_to("c.jpg")
    os.mkfifo(root / "test" / "cat" / "d.tif")
    (root / "test" / "dog" / "e.png").write_bytes(b"rubbish")
    with pytest.raises(UserError) as told:
        data.load("folder", root)
    told = str(told.value)
    assert told.startswith(
        f"folder: 5 of 13 files are of no use: {root}/train/cat/a\\n\\x1b.png is not a readable image (it"
    )
    assert "train/dog/b.jpg cannot be read (No such file or directory); " in told
    assert "train/dog/c.jpg cannot be read (Too many levels of symbolic links); and 2 more: replace or" in told


def test_what_was_made_of_the_files_is_told_each_time(tmp_path):
    root = folder_of(tmp_path / "pets")
    put(
        root / "train" / "cat" / "pages.tif",
        Image.fromarray(GREY8),
        save_all=True,
        append_images=[Image.new("L", (9, 9))],
    )
    put(root / "train" / "dog" / "dark.png", GREY16 // 16)
    first, again = data.load("folder", root), data.load("folder", root)
    assert first.notes == again.notes
    assert [note.split(":")[0] for note in first.notes] == ["only the first frame or page is taken of 1 images", "dark"]
    assert "train/cat/pages.tif" in first.notes[0]
    assert "6.2% of white" in first.notes[1]
    # nothing is said of images that use their bits
    put(root / "test" / "dog" / "bright.png", GREY16.T)
    assert len(data.load("folder", root).notes) == 1
