"""The results of a job: the run folder with its manifest and model card, and rows sampled from it."""
