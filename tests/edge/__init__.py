"""Exported models on emulated microcontrollers."""
