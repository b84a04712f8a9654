"""The proof in released values and in guesses: what an audit or a canary shows about ε."""
