"""Does the guarantee hold? Attacks on the private step and on whole trainings, and what they prove."""
