"""The report of a retraining beside its run in MLflow, as the artifact `report.html`.

What a run has is brought to MLflow by another process (`adapt.tracking.sender`), so that this waits
a little until the run is closed there. A report that cannot be made then is no failure: it can be
made at any time, of any run.
"""

import time

from adapt.params import InputError
from adapt.report import page, reading
from adapt.report.__main__ import footer
from adapt.tracking import runs
from adapt.tracking.refusals import DAMAGE
from adapt.tracking.store import Store, uri

NAME = "report.html"
POLL_S = 0.2


def keep(store: Store, run_id: str, seconds: float) -> str:
    """Write the report of the journal's run `run_id` into MLflow; returns "", or why not.

    `seconds` is how long it waits for MLflow to have all of the run.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    deadline = time.monotonic() + seconds
    try:
        known = runs.recorded(store, run_id, seconds)
        while store.client.get_run(known).info.status == "RUNNING":
            if time.monotonic() > deadline:
                return "MLflow has not got all of the run yet"
            time.sleep(POLL_S)
        address = uri(store.root)
        record = reading.read(
            store.client, store.client.get_run(known), address, store.config.model
        )
        store.client.log_text(known, page.render([record], footer(record.address)), NAME)
    except InputError as error:
        return str(error)
    except (MlflowException, SQLAlchemyError, OSError, *DAMAGE) as error:
        return str(error).partition("\n")[0][:200] or type(error).__name__
    return ""
