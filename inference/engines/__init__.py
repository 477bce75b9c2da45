"""The two files that name an array library."""
