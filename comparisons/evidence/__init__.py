"""The judge: estimators of bounds and of log p(x), each with its error. They never change training."""
