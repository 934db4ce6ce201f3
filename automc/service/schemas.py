"""What answers look like, for the OpenAPI file: the members that a client may rely on; there may be more."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Number = float | None
"""None where it is no finite number."""


class Open(BaseModel):
    """An object that may have further members."""

    model_config = ConfigDict(extra="allow")


class ProblemBody(Open):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    place: str
    hint: str


class StudyStatus(Open):
    """A study in a list."""

    name: str
    created: str
    revision: int
    proposer: str
    objectives: dict[str, str]
    state: str
    said: str
    legal: list[str]
    last_event: int
    last_event_at: str
    counts: dict[str, int]
    finished: int
    budget: int
    best: dict[str, Number]
    front: int
    covered: Number


class Studies(Open):
    """All of them."""

    studies: list[StudyStatus]


class StudyBody(Open):
    """A study as it was asked for."""

    name: str
    created: str
    revision: int
    edition: int
    note: str
    spec: dict[str, Any]
    baseline: dict[str, Number]


class TrialRows(Open):
    """A page of trials."""

    trials: list[dict[str, Any]]
    next_page_token: str


class TrialBody(Open):
    """One trial."""

    number: int
    state: str
    rung: int
    fingerprint: str
    metrics: dict[str, Number]
    policy: dict[str, Any]
    attempts: int
    history: list[dict[str, Any]]


class Scatter(Open):
    """Trials in the plane of two metrics, as columns of equal length."""

    axes: dict[str, str | None]
    number: list[int]
    rung: list[int]
    place: list[int]
    kind: list[str]
    x: list[float]
    y: list[float]
    colour: list[Number] | None
    shown: int
    total: int


class Answered(Open):
    """The rows of a SELECT."""

    columns: list[str]
    rows: list[dict[str, Any]]
    more: bool


class Asked(Open):
    """What a study was asked, and its state by then."""

    study: str
    state: str
    legal: list[str]


class OperationBody(Open):
    """An export."""

    id: str
    study: str
    number: int
    state: str
    said: str
    result: dict[str, Any]
