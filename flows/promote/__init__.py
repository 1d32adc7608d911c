"""The champion: how the gate decides on a retraining, and what a person may say about it."""
