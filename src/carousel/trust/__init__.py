"""Honesty about figures: leak audit, split, class balance, calibration, spread over seeds; see docs/trust.md."""
