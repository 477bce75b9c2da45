"""The files that name an array library: an engine each, and how torch is compiled."""
