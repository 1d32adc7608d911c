"""The champion answers, with the risk of every token: over HTTP, and as a model of MLflow's."""
