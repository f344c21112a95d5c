"""The artefact on disk: manifest, graphs, engines, calibration, records."""
