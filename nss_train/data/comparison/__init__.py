"""The cells of a file beside what would be trained of them."""
