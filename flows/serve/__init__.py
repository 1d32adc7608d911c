"""Scheduled retraining on this machine: three services that supervisord keeps alive.

`services` declares them (Prefect server, worker, MLflow server), `keeper` starts and stops them,
`guard` stands above each, `python -m flows.serve` is the command line.
"""
