"""Which method fits counts that scatter more than a Poisson's: `python examples/counts.py [FOLDER]`."""

import sys
from pathlib import Path

import numpy as np

from comparisons import export, marginal_likelihood

out = Path(*sys.argv[1:2] or ["results/counts"])
out.mkdir(parents=True, exist_ok=True)

# Counts [n, d] as they come from anywhere: here 20 columns that two latent variables drive, each with a scatter.
rng = np.random.default_rng(0)
z, loadings = rng.standard_normal((600, 2)), 0.7 * rng.standard_normal((2, 20))
counts = rng.poisson(rng.gamma(2.0, np.exp(1.0 + z @ loadings) / 2.0))
np.savez(out / "counts.npz", x=counts)

words = f"--data {out / 'counts.npz'} --model vae_negative_binomial --backend aevb wake_sleep --engine pyro"
words += " --n-latent 2 --n-hidden 20 --samples 10000 --optimizer adam --step-size 0.02 --warmup 0 --eval-points 50"
code = marginal_likelihood.main([*words.split(), "--out", str(out)])
code = code or export.main([str(out), "--to", "latex", "--out", str(out / "paper" / "table.tex")])
sys.exit(code)
