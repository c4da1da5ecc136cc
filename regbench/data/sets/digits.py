"""scikit-learn's bundled handwritten digits: 1,797 real images, no download."""

import hashlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

from regbench.data import cache
from regbench.data.images import SIDE, Images, from_grey

TEST_SIZE = 360


def load(data_dir: Path) -> Images:
    """Return the 8x8, 17-level images enlarged to 32x32; `data_dir` is not used.

    The bundle has no test part: 360 of the 1,797 are set aside, stratified, always the same.
    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    # cached because importing scikit-learn takes longer than all the rest
    made_by = f"digits {SIDE} {TEST_SIZE} {version('scikit-learn')} {version('pillow')}"
    key = hashlib.sha256(made_by.encode()).hexdigest()
    if cached := cache.read(key, "digits"):
        return cached
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bundle = load_digits()
    grey = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    large = np.stack([np.asarray(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) for x in grey])
    labels = bundle.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST_SIZE, stratify=labels, random_state=0)
    pixels, train, test = from_grey(large), np.sort(train), np.sort(test)
    classes = tuple(str(name) for name in bundle.target_names)
    images = Images("digits", classes, pixels[train], labels[train], pixels[test], labels[test])
    cache.write(key, images)
    return images
