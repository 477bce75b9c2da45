"""The judge: estimators of bounds and of log p(x), each with its error. They never change training.

An estimator of log p(x) is estimate(target, settings, seed) -> Estimate: the target is the problem as a value, and the
settings have their defaults and their words once, in the estimator's own file.
"""
