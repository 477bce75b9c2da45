"""The contracts of a model and of a backend, as checks that are run on one."""
