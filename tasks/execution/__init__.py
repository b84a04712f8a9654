"""One stage on one worker: from a delivery to its commit, and every other end."""
