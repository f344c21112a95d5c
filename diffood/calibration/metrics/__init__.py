"""Measured rates on labelled scores, with intervals."""
