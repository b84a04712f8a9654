"""The whole deployment on one machine."""
