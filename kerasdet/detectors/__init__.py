"""The detectors, one file each, and the one class they share."""
