"""ADAPT, preference tuning with attention supervision: retraining for multimodal LLMs."""
