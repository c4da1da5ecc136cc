"""Measurements of regbench: speed, robustness to interruptions, calibration of the report."""
