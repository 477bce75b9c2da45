"""A notebook in cells: two methods on handwritten digits, and a look at what they learnt.

Run it cell by cell, or as a script: `python examples/notebook.py [FOLDER]`.
"""

# %%
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from comparisons import compare
from comparisons.library.fitted import Fitted

NAMED = sys.argv[1:2] if __name__ == "__main__" and "ipykernel" not in sys.modules else []
OUT = Path(*NAMED or ["results/notebook"])

# %% [markdown]
# AEVB learns one network that embeds any image; mean-field VI fits a q(z) to each image.

# %%
found = compare(
    "digits",
    backends=["aevb", "mean_field"],
    engines="numpyro",
    optimizer="adam",
    step_size=0.01,
    samples=100_000,
    n_latent=2,
    eval_points=200,
    out=OUT,
)
found

# %%
print(found)
found.table[["backend", "log_px_test", "lower_bound_test", "kl_test", "seconds"]]

# %%
curves = found.figure()
curves.savefig(OUT / "curves.png", dpi=100)
curves

# %% [markdown]
# Where q(z | x) puts the test images, each drawn as its label. No method has seen a label: the suite has none, and here
# they come from scikit-learn, in the order of the pixels.

# %%
fits = {name: found.fit(name) for name in ("aevb", "mean_field")}
x = fits["aevb"].data.test  # [n, 64], in [0, 1]
known = load_digits()
label_of = {
    image.tobytes(): label for image, label in zip((known.data / 16).astype(np.float32), known.target, strict=True)
}
labels = np.array([label_of[image.tobytes()] for image in x])

figure = Figure(figsize=(9, 4.5), layout="constrained")
for axis, (name, fit) in zip(figure.subplots(1, 2), fits.items(), strict=True):
    z = fit.embed(x)  # [n, 2]
    axis.plot(*z.T, " ")  # nothing but the limits
    for place, label in zip(z, labels, strict=True):
        axis.text(*place, str(label), color=f"C{label}", fontsize=7, ha="center", va="center")
    axis.set(title=f"E[z | x] of {name}", xlabel="$z_1$", ylabel="$z_2$")
figure.savefig(OUT / "embedding.png", dpi=100)
figure


# %% [markdown]
# Test images above what each method makes of them.


# %%
def rows_of_images(rows: dict[str, np.ndarray], shape: tuple[int, int]) -> Figure:
    """Draw images [n, rows * columns], a line of n for each name."""
    n = len(next(iter(rows.values())))
    figure = Figure(figsize=(0.7 * n + 1.2, 0.75 * len(rows)), layout="constrained")
    for line, (name, images) in zip(figure.subplots(len(rows), n, squeeze=False), rows.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.reshape(shape), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


shape = fits["aevb"].data.shape
seen = x[[np.flatnonzero(labels == digit)[0] for digit in range(10)]]  # one of each digit
figure = rows_of_images({"test": seen, **{name: fit.reconstruct(seen) for name, fit in fits.items()}}, shape)
figure.savefig(OUT / "reconstructions.png", dpi=100)
figure


# %% [markdown]
# Draws of z from the prior: the decoder's mean E[x | z], and images x ~ p(x | z) at the same z.


# %%
def drawn(fit: Fitted) -> dict[str, np.ndarray]:
    """Return means and images of the same ten z."""
    return {"mean": fit.sample(10, seed=1, mean=True), "image": fit.sample(10, seed=1)}


both = {f"{name}, {kind}": images for name, fit in fits.items() for kind, images in drawn(fit).items()}
figure = rows_of_images(both, shape)
figure.savefig(OUT / "samples.png", dpi=100)
figure
