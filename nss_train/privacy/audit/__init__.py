"""Attacks on the private step and on whole trainings that test the guarantee, and what they prove."""
