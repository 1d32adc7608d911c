"""How a retraining can end, each a name that Prefect shows as the state of its flow run.

| state            | what has happened                                                            |
|------------------|------------------------------------------------------------------------------|
| Promoted         | the result is the champion now                                               |
| Refused          | the gate, or an earlier rejection by a person, keeps it from becoming one    |
| Held             | it passed, but this retraining may not move the champion                     |
| AwaitingApproval | it passed, and a person has to approve it                                    |
| Unchanged        | nothing was due, or the result is the champion already                       |
| Partial          | the stages that were asked for are done, others are due                      |
| DryRun           | it was only said what would run                                              |
| InputError       | somebody has to change what was given: the message names it                  |
| Busy             | another retraining, or another DVC command, has the workspace                |
| RegistryAway     | the stages are up to date, the gate could not be asked                       |
| TimedOut         | a stage took longer than it may                                              |
| Failed           | a stage failed                                                               |

All of the second half are failures to Prefect.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prefect.states import Completed, Failed, State

from flows.promote.ending import How, Promotion

Failure = Literal["InputError", "Busy", "RegistryAway", "TimedOut", "Failed"]
Success = Literal[
    "Promoted", "Refused", "Held", "AwaitingApproval", "Unchanged", "Partial", "DryRun"
]
FAILURES: tuple[Failure, ...] = get_args(Failure)
ENDINGS: Mapping[How, Success] = {
    "promoted": "Promoted",
    "refused": "Refused",
    "held": "Held",
    "waiting": "AwaitingApproval",
    "champion": "Unchanged",
}
"""How a promotion ended, as the end of its retraining."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of one retraining: its state's name, one line for a person, and where to look.

    `name` is that of the run ("2026-11-26 nightly, data 3f2a1c"), `run_id` MLflow's id of its
    record, `page` where MLflow shows that, `flow_run` Prefect's id; empty where there is none.
    """

    kind: Success | Failure
    message: str
    name: str = ""
    run_id: str = ""
    page: str = ""
    flow_run: str = ""
    promotion: Promotion | None = None

    @property
    def failed(self) -> bool:
        """Whether somebody has to do something before the next one can end well."""
        return self.kind in FAILURES

    def state(self) -> State[Any]:
        """The same for Prefect."""
        made = Failed if self.failed else Completed
        return made(name=self.kind, message=self.message)
