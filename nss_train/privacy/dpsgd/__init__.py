"""The private training itself: sampling, clipping, noise, and the trainer around them."""
