"""How the paper's figures are run here: what their panels have in common, besides its section 5."""

from typing import Any

# Without the authors' 100 steps of warm-up, which cost wake-sleep 2 nats and more at a million points. 300 steps choose
# a step size that is best for 300 steps: wake-sleep's curves cross after 3000. Four draws of z for each of 10,000
# points leave 0.01 nat of noise.
FIGURE2: dict[str, Any] = {"warmup": 0, "pilot_steps": 3000, "elbo_draws": 4}
