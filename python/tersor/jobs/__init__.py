"""Whole checkpoints pruned, quantized and read back, as streams. The one rule: a job stands above families and files, and
neither knows it.
"""
