"""
Tests of :mod:`yurt.mux`.
"""
