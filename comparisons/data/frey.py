"""Frey Face, 1965 frames of 28 x 20 pixels: 1600 for training and 365 for testing."""

import struct
from pathlib import Path

import numpy as np

from comparisons.data.base import DataCard, split
from comparisons.data.files import File, fetch
from comparisons.errors import DataError

FRAMES = File(
    "frey/frey_rawface.mat",
    "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64",
    # the original home is reported to answer 403 at times
    ("https://cs.nyu.edu/~roweis/data/", "https://raw.githubusercontent.com/cvybhu/VAE/master/data/"),
)


def frey(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train and test: pixels / 256 as in the authors' code, shuffled, as neighbouring frames are alike."""
    return split(read_frey(fetch(FRAMES, data_dir)).astype(np.float32) / 256, 1600)


def read_frey(path: str | Path) -> np.ndarray:
    """Read the 1965 frames [1965, 560] uint8 of Frey Face, 28 x 20 pixels row by row, from its MATLAB 5 file.

    The file is one array, `ff` [560, 1965] in column-major order, after a header of 184 bytes. scipy.io.loadmat reads
    the same, but some damaged files make it crash the process, so the header is compared here. Raises DataError for a
    file that is unreadable, cut short, too long or of another kind.
    """
    size = 560 * 1965
    # MAT-file format 5: version, then (type, bytes, content) of the matrix, its flags, dimensions, name and pixels
    parts = 0x4D490100, 14, 48 + size, 6, 8, 9, 0, 5, 8, 560, 1965, 1, 2, b"ff", 2, size
    header = struct.pack("<11I2H4s2I", *parts)
    try:
        with open(path, "rb") as file:
            content = file.read(184 + size + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if len(content) != 184 + size or content[124:184] != header:
        raise DataError(f"{path}: not {184 + size} bytes of MATLAB 5 with one array 'ff', 560 x 1965 unsigned bytes")
    return np.frombuffer(content, np.uint8, offset=184).reshape(1965, 560)


OURS = "log density of pixels / 256; the split is ours, as the paper's is unknown"
FREY = DataCard("Frey Face", 1600, (28, 20), "unit", OURS, "vae_gaussian", frey)
