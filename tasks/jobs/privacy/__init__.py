"""What the store knows of privacy: who owns a dataset, what its jobs cost, and the secrets drawn for them."""
