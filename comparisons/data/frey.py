"""Frey Face, 1965 frames of 28 x 20 pixels: 1600 for training and 365 for testing."""

import struct
from pathlib import Path

import numpy as np

from comparisons.data.base import DataCard, split
from comparisons.data.files import File, read, unpack, whole
from comparisons.errors import DataError

PIXELS = 560 * 1965
SIZE = 184 + PIXELS  # bytes of the file
LIMIT = SIZE + 2**12  # of what is read: gzip may add a little
FRAMES = File(
    "frey/frey_rawface.mat",
    "265a83a23adb081755cd3de375509828e690324d1d60f076b8ecebc840d59c64",
    # the original home is reported to answer 403 at times
    ("https://cs.nyu.edu/~roweis/data/", "https://raw.githubusercontent.com/cvybhu/VAE/master/data/"),
    size=SIZE,
)


def frey(data_dir: str | Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return train and test: pixels / 256 as in the authors' code, shuffled, as neighbouring frames are alike."""
    path, content = read(FRAMES, data_dir)
    return split(_parsed(path, content).astype(np.float32) / 256, 1600)


def read_frey(path: str | Path) -> np.ndarray:
    """Read the 1965 frames [1965, 560] uint8 of Frey Face, 28 x 20 pixels row by row, from its MATLAB 5 file.

    Raises DataError for a file that is unreadable, cut short, too long or of another kind.
    """
    try:
        return _parsed(path, whole(path, LIMIT))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error


def _parsed(path: str | Path, packed: bytes) -> np.ndarray:
    """Return the frames that the file's content holds. Raises DataError.

    It is one array, `ff` [560, 1965] in column-major order, after a header of 184 bytes. scipy.io.loadmat reads the
    same, but some damaged files make it crash the process, so the header is compared here.
    """
    try:
        content = unpack(packed, SIZE)
    except ValueError as error:
        raise DataError(f"{path}: not a whole gzip file ({error})") from error
    # MAT-file format 5: version, then (type, bytes, content) of the matrix, its flags, dimensions, name and pixels
    parts = 0x4D490100, 14, 48 + PIXELS, 6, 8, 9, 0, 5, 8, 560, 1965, 1, 2, b"ff", 2, PIXELS
    header = struct.pack("<11I2H4s2I", *parts)
    if len(content) != SIZE or content[124:184] != header:
        raise DataError(f"{path}: not {SIZE} bytes of MATLAB 5 with one array 'ff', 560 x 1965 unsigned bytes")
    return np.frombuffer(content, np.uint8, offset=184).reshape(1965, 560)


OURS = "log density of pixels / 256; the split is ours, as the paper's is unknown"
FREY = DataCard("Frey Face", 1600, (28, 20), "unit", OURS, "vae_gaussian", frey)
