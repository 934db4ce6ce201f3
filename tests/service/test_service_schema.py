"""The OpenAPI file against the service: requests generated from it, good ones and broken ones, and what comes back.

AUTOMC_EXAMPLES says how many a route and kind; with 400 there are about 21,000.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from service_documents import document

from automc.app import runs
from automc.app.config import study_from
from automc.service.app import make_app
from automc.service.builder import here
from automc.service.settings import Settings
from automc.service.tokens import mint

EXAMPLES = int(os.environ.get("AUTOMC_EXAMPLES", "3"))
HOST = "127.0.0.1:8765"
STREAMS = "/events"
"""The end of the one path whose answer has no end."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    storage = str(tmp_path_factory.mktemp("schema") / "automc.db")
    with_trials = runs.start(study_from(document(storage=storage), "test"))
    with_trials.run()
    with_trials.close()
    made = make_app(Settings(storage, drives=False))
    made.state.desk.build = here
    yield made
    made.state.desk.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # schemathesis warns of what it leaves out
def test_no_request_breaks_the_service_and_every_answer_is_as_the_file_says(app: FastAPI) -> None:
    """Above 5 s: some hundred requests."""
    import schemathesis
    from schemathesis import checks
    from schemathesis.generation import GenerationMode

    secret, _ = mint(app.state.desk.store, "admin", None)
    head = {"authorization": f"Bearer {secret}", "host": HOST}
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, headers=head)
    wanted = [
        checks.CHECKS.get_one(name)
        for name in (
            "not_a_server_error",
            "status_code_conformance",
            "content_type_conformance",
            "response_schema_conformance",
        )
    ]
    answers: Counter[int] = Counter()
    turn = itertools.count()

    def ask(case: Any) -> None:
        if "study" in case.path_parameters and next(turn) % 4:
            case.path_parameters["study"] = "s"  # most are of a study that there is
        answer = case.call(headers=head)
        answers[answer.status_code] += 1
        case.validate_response(answer, headers=head, checks=wanted)

    given_so = settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(STREAMS) or operation.method.upper() == "DELETE":
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not _can_be_broken(operation):
                continue
            given_so(given(operation.as_strategy(generation_mode=mode))(ask))()
    print(f"{answers.total():,} requests: {dict(sorted(answers.items()))}")
    assert answers.total() > 40 * EXAMPLES
    assert {200, 404, 422} <= answers.keys()
    assert max(answers) < 500


def _can_be_broken(operation: Any) -> bool:
    """Whether it takes anything but the name of a study, which may be any text."""
    return bool(operation.query or operation.headers or operation.body) or "{number}" in operation.path
