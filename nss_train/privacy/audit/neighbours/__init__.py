"""Neighbouring tables, as files: do they leave the same traces, but for what the guarantee allows?"""
