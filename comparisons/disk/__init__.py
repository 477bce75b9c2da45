"""What is on disk: written whole or not at all, read without trust, held against other processes."""
