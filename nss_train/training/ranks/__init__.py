"""The processes that share a training: how they start, what each holds, and how the group ends."""
