"""Networks that others wrote and trained, or might have: plain torch modules, without a word of the suite."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[2] / "shared" / "foreign"


class BitsBackDecoder(nn.Module):  # type: ignore[misc]
    """p(x | z) of the repository bits-back/bits-back, for binary pixels: relu(fc3 z), logits fc4."""

    def __init__(self) -> None:
        super().__init__()
        self.fc3, self.fc4 = nn.Linear(40, 100), nn.Linear(100, 784)

    def forward(self, z: Tensor) -> Tensor:
        return self.fc4(torch.relu(self.fc3(z)))


class BitsBackEncoder(nn.Module):  # type: ignore[misc]
    """Its q(z | x): relu(fc1 x), mean fc21, standard deviation exp(fc22)."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 100), nn.Linear(100, 40), nn.Linear(100, 40)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.fc1(x))
        return self.fc21(h), torch.exp(self.fc22(h))


class Bdmc(nn.Module):  # type: ignore[misc]
    """A network of lxuechen/BDMC: two hidden layers of elu; the encoder's output is mean and log variance."""

    def __init__(self, first: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.names = [f"fc{first + i}" for i in range(3)]
        for name, size in zip(self.names, ((n_in, 200), (200, 200), (200, n_out)), strict=True):
            self.add_module(name, nn.Linear(*size))

    def forward(self, value: Tensor) -> Tensor:
        one, two, three = (getattr(self, name) for name in self.names)
        return three(nn.functional.elu(two(nn.functional.elu(one(value)))))


class Tied(nn.Module):  # type: ignore[misc]
    """An encoder whose mean is by the decoder's own weights."""

    def __init__(self, decoder: nn.Linear) -> None:
        super().__init__()
        self.weight, self.spread = decoder.weight, nn.Parameter(torch.zeros(decoder.in_features))

    def forward(self, x: Tensor) -> Tensor:
        mean = x @ self.weight
        return torch.cat([mean, self.spread.expand(mean.shape)], -1)


def loaded(module: nn.Module, file: str) -> nn.Module:
    """Load what of a checkpoint is the module's."""
    from safetensors.torch import load_file

    state = load_file(FOLDER / f"{file}.safetensors")
    module = module.to(next(iter(state.values())).dtype)
    module.load_state_dict({name: state[name] for name in module.state_dict()})
    return module


def tanh_pair(n_x: int, n_latent: int, n_hidden: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The suite's vae_bernoulli, as anybody would write it in torch."""
    decoder = nn.Sequential(nn.Linear(n_latent, n_hidden), nn.Tanh(), nn.Linear(n_hidden, n_x))
    encoder = nn.Sequential(nn.Linear(n_x, n_hidden), nn.Tanh(), nn.Linear(n_hidden, 2 * n_latent))
    return decoder, encoder


def filled(theta: dict[str, Any], phi: dict[str, Any]) -> tuple[nn.Sequential, nn.Sequential]:
    """The same with the weights of vae_bernoulli's theta and phi."""
    (k, h), d = theta["w1"].shape, theta["b2"].shape[0]
    decoder, encoder = tanh_pair(d, k, h)
    output = np.concatenate([phi["w4"], phi["w5"]], 1), np.concatenate([phi["b4"], phi["b5"]])
    for layer, weight, bias in (
        (decoder[0], theta["w1"], theta["b1"]),
        (decoder[2], theta["w2"], theta["b2"]),
        (encoder[0], phi["w3"], phi["b3"]),
        (encoder[2], *output),
    ):
        layer.load_state_dict({"weight": torch.tensor(weight.T.copy()), "bias": torch.tensor(bias)})
    return decoder, encoder


def renamed(theta: dict[str, np.ndarray], phi: dict[str, np.ndarray]) -> tuple[dict[str, Any], dict[str, Any]]:
    """theta and phi of the two modules, or what has their names and shapes, by the names of vae_bernoulli."""
    k = theta["0.weight"].shape[1]
    weight, bias = phi["2.weight"].T, phi["2.bias"]
    return {"w1": theta["0.weight"].T, "b1": theta["0.bias"], "w2": theta["2.weight"].T, "b2": theta["2.bias"]}, {
        "w3": phi["0.weight"].T,
        "b3": phi["0.bias"],
        "w4": weight[:, :k],
        "b4": bias[:k],
        "w5": weight[:, k:],
        "b5": bias[k:],
    }
