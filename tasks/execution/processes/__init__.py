"""Processes of stages: started, watched and ended."""
