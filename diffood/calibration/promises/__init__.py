"""Thresholds on the OOD score and what they promise about false alarms."""
