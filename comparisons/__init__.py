"""Which runs are made, how they are judged, and what is written down."""
