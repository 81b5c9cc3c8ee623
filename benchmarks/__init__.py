"""Benchmarks: the quality of a trained run (`quality`), the codec, the world and the report of results.

This module and `config` import nothing heavy, so that `transframer --help` stays fast.
"""
