"""Addresses of pages that a message can lead to, as far as a server shows them."""

from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL

from adapt import addresses
from adapt.tracking.store import Store, uri
from flows.serve import keeper


def mlflow(store: Store) -> str:
    """The MLflow server that shows the store: the configured one, or ours; "" where none runs."""
    address = addresses.shown(uri(store.root))
    if address.startswith("http"):
        return address.rstrip("/")
    return str(keeper.processes(store.root).get("mlflow", {}).get("address", ""))


def flow_page() -> str:
    """Prefect's page of this flow run; "" where its server is a temporary one, and soon gone."""
    page = str(flow_run.ui_url or "") if PREFECT_API_URL.value() else ""
    return addresses.shown(page) if page.startswith("http") else ""


def run_page(store: Store, run_id: str) -> str:
    """MLflow's page of a run; "" where no server shows it."""
    server = mlflow(store)
    return f"{server}/#/experiments/{store.experiment_id}/runs/{run_id}" if server else ""
