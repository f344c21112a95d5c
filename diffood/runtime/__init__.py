"""All that runs on the edge: numpy and one engine library, no torch."""
