"""A registered model that is asked: one core that answers, with the risk of every token."""
