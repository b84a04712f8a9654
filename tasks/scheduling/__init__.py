"""What runs next: the chain of stages, the queue of each, whose turn it is, what is sent again."""
