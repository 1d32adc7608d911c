"""Scheduled retraining on this machine: Prefect server, worker and MLflow server, kept alive by
supervisord. `services` declares them, `keeper` starts and stops them, `python -m flows.serve` is
the command line.
"""
