"""What a job leaves behind: the run folder with its manifest and model card, and rows sampled from it."""
