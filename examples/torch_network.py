"""A network trained in plain torch, judged on digits that it has not seen: `python examples/torch_network.py`."""

import torch
from torch.nn import Linear, Sequential, Tanh

from comparisons import judge
from comparisons.data import load

N_LATENT, N_HIDDEN, STEPS = 2, 50, 500


class Vae(torch.nn.Module):
    """p(x | z) of independent pixels and q(z | x), a normal: a hidden layer of tanh units each."""

    def __init__(self, n_x: int) -> None:
        super().__init__()
        self.decoder = Sequential(Linear(N_LATENT, N_HIDDEN), Tanh(), Linear(N_HIDDEN, n_x))
        self.encoder = Sequential(Linear(n_x, N_HIDDEN), Tanh(), Linear(N_HIDDEN, 2 * N_LATENT))

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        """Return minus the lower bound, from one draw of z for each row of x [n, n_x]."""
        mean, log_variance = self.encoder(x).chunk(2, -1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum()
        return (cross_entropy + kl) / len(x)


torch.manual_seed(0)
digits = load("digits")
train = torch.from_numpy(digits.train)
network = Vae(train.shape[1])
optimizer = torch.optim.Adam(network.parameters(), 0.01)
for _ in range(STEPS):
    optimizer.zero_grad()
    network.loss(train[torch.randint(len(train), (100,))]).backward()
    optimizer.step()

# torch keeps a weight as [out, in], the suite as [in, out]; the encoder's last layer is mean, then log variance.
w = {name: value.t() for name, value in network.state_dict().items()}
theta = {"w1": w["decoder.0.weight"], "b1": w["decoder.0.bias"], "w2": w["decoder.2.weight"], "b2": w["decoder.2.bias"]}
phi = {"w3": w["encoder.0.weight"], "b3": w["encoder.0.bias"]}
phi["w4"], phi["w5"] = w["encoder.2.weight"].chunk(2, -1)
phi["b4"], phi["b5"] = w["encoder.2.bias"].chunk(2, -1)

found = judge("vae_bernoulli", theta, digits.test[:200], phi, engine="pyro")
print(found)
print(f"The recognition network leaves {found.mean - found.estimates['elbo_nats'].mean()[0]:.2f} nats open.")
