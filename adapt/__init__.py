"""ADAPT: preference tuning with attention supervision, as a retraining pipeline for multimodal
LLMs.
"""
