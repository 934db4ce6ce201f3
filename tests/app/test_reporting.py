"""Reports: every number against the core's own, nothing from outside, nothing unescaped."""

import base64
import hashlib
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from automc.app.reporting import scatter
from automc.app.reporting.found import Found, without_password
from automc.app.reporting.growth import Step, grown, part_of, replayed
from automc.app.reporting.html import to_html
from automc.app.reporting.markdown import plain, to_markdown
from automc.app.reporting.report import document
from automc.app.reporting.strips import MOST as MOST_STRIPS
from automc.app.reporting.strips import chosen
from automc.app.reporting.style import SCRIPT
from automc.app.reporting.svg import Scale, brief, scale
from automc.core.layers import Group, Layer, LayerTable
from automc.core.metrics import Constraint, Measurement, Objective
from automc.core.pareto import covered, front
from automc.core.policy import Policy, Site
from automc.core.rules import Rule
from automc.core.space import Choice, Real
from automc.core.study import Budget, ModelSpec, Part, StudySpec
from automc.core.tally import tally
from automc.core.trial import Trial, TrialState

SPEC = StudySpec(
    name="demo",
    model=ModelSpec("digits_net"),
    data=Part("digits"),
    rules=(
        Rule("prune", {"prune_ratio": Real(0, 0.5, 0.1)}),
        Rule("quantize", {"weight_bits": Choice((2, 8))}, exclude=("stem",)),
    ),
    order=("drop", "prune", "quantize"),
    objectives=(Objective("top1"), Objective("size_ratio")),
    constraints=(Constraint.parse("macs_ratio <= 0.9"),),
    budget=Budget(trials=100),
)
BASELINE = {"top1": 0.98, "size_ratio": 1.0, "macs_ratio": 1.0}


def layer(name: str, index: int) -> Layer:
    return Layer(name, index, "conv", 8, 8, (3, 3), (1, 1), (8, 8, 8), 576, 36864)


TABLE = LayerTable(
    layers=(layer("stem", 0), layer("mid", 1), layer("tail", 2)),
    groups=(Group("stem", 8, ("stem", "tail"), ("mid",)),),
    input_shape=(1, 8, 8),
)


def trial(number: int, top1: float, size: float, macs: float = 0.5, rung: int = 0) -> Trial:
    policy = Policy({Site("prune", "stem", "prune_ratio"): number % 6 / 10, Site("quantize", "mid", "weight_bits"): 2})
    metrics = {"top1": top1, "size_ratio": size, "macs_ratio": macs}
    found = Measurement(metrics, seconds=2.0, errors={"top1": 0.01}, samples=100)
    return Trial(number, policy, state=TrialState.COMPLETE, measurement=found, rung=rung)


def some(count: int, seed: int = 0) -> list[Trial]:
    draw = random.Random(seed)
    return [trial(n, draw.random(), draw.uniform(0.1, 1), draw.random()) for n in range(count)]


def growth(trials: list[Trial]) -> list[Step]:
    done = [t for t in trials if t.state.finished]
    part = part_of(len(done))
    spent = [t.measurement.seconds if t.measurement and t.twin is None else 0.0 for t in done]
    sums = [sum(spent[at : at + part]) for at in range(0, len(done), part)]
    return grown(SPEC, BASELINE, replayed(SPEC, done), {t.number: t for t in trials}, sums, len(done))


def made(trials: list[Trial], **changes: object) -> Found:
    members = front(trials, SPEC.objectives, SPEC.constraints)
    found = Found(
        revisions=(SPEC,),
        storage="demo.db",
        baseline=BASELINE,
        layers=TABLE,
        counts=tally(trials),
        trials=trials,
        counted=trials,
        ended=list({(t.state, t.reason): t for t in trials if t.reason}.values()),
        growth=growth(trials),
        front=members,
        pick="knee",
        picked=members[0] if members else None,
        started=(),
        mattered="importance: too few trials",
        written="2026-01-02 03:04 UTC",
        versions={"python": "3.11"},
        study_file="name: demo\n",
    )
    return replace(found, **changes)  # type: ignore[arg-type]


VOID = {"meta", "br", "hr", "link", "img", "input"}


class Page(HTMLParser):
    """The page as a browser takes it apart: every element with its attributes and text; wrong nesting is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def names(self) -> set[str]:
        return {name for name, _ in self.elements}


def drawings(text: str) -> list[ElementTree.Element]:
    """Every SVG of a page, read as XML."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


def test_the_page_is_whole_and_asks_for_nothing_else() -> None:
    text = to_html(document(made(some(60))))
    page = Page(text)
    assert page.names().isdisjoint({"link", "img", "iframe", "object", "embed", "base", "form", "use", "image"})
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "action", "data", "srcset", "formaction"):
            assert (attributes.get(key) or "#").startswith("#"), (name, key)
        assert not any(key.startswith("on") for key in attributes)
    assert re.findall(r"https?:|//\w|@import|url\(", text) == []
    assert "prefers-color-scheme: dark" in text
    assert len(drawings(text)) == 4  # the front, its growth over trials and over time, the strips


def test_only_the_one_script_may_run() -> None:
    page = Page(to_html(document(made(some(20)))))
    policies = [a["content"] for name, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256("".join(page.texts["script"]).encode()).digest()).decode()
    assert policies == [f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"]


EVIL = """</title></script><script>alert('x')</script><img src=x onerror="alert(1)">&amp;"""


def test_names_and_messages_that_hold_html_are_shown_and_not_obeyed() -> None:
    table = replace(TABLE, layers=(layer(EVIL, 0), *TABLE.layers[1:]))
    failed = Trial(90, Policy({}), state=TrialState.FAILED, reason="error", message=EVIL)
    spec = replace(SPEC, name=EVIL, model=ModelSpec(EVIL), evaluator=Part(EVIL, {EVIL: EVIL}))
    found = made(
        [*some(30), failed], layers=table, revisions=(spec, replace(spec, revision=1)), storage=EVIL, study_file=EVIL,
        versions={EVIL: EVIL}, started=(EVIL,), pick=EVIL, mattered=EVIL,
    )  # fmt: skip
    text = to_html(document(found))
    page = Page(text)
    assert [name for name, _ in page.elements].count("script") == 1
    assert "".join(page.texts["script"]) == SCRIPT
    assert "img" not in page.names()
    assert any(EVIL in said for said in page.texts["dd"])
    assert any(EVIL in said for said in page.texts["td"])
    assert "".join(page.texts["pre"]).count(EVIL) >= 1
    hints = [element.text or "" for drawing in drawings(text) for element in drawing.iter("title")]
    assert any(EVIL in said for said in hints)
    markdown = to_markdown(document(found))
    outside = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert re.findall(r"(?<!\\)<", outside) == []


def test_a_dot_for_every_trial_says_number_metrics_and_errors() -> None:
    trials = some(40)
    found = made(trials)
    drawing = drawings(scatter.pareto_picture(found, "size_ratio", "top1").svg)[0]
    circles = {int(c.get("data-trial", "-1")): c for c in drawing.iter("circle")}
    assert set(circles) == {t.number for t in trials}
    for one in trials:
        assert one.measurement is not None
        said = circles[one.number].findtext("title") or ""
        top1, size = one.measurement.metrics["top1"], one.measurement.metrics["size_ratio"]
        assert said.splitlines()[:3] == [
            f"trial {one.number}, rung 0", f"top1 {top1:.4f} ± 0.0100", f"size_ratio {size:.4f}"
        ]  # fmt: skip
    kinds = {number: circle.get("class") for number, circle in circles.items()}
    members = {t.number for t in found.front}
    broken = {t.number for t in trials if t.measurement and t.measurement.metrics["macs_ratio"] > 0.9}
    assert {n for n, kind in kinds.items() if kind in ("front", "picked")} == members
    assert {n for n, kind in kinds.items() if kind == "infeasible"} == broken
    assert [n for n, kind in kinds.items() if kind == "picked"] == [found.front[0].number]
    assert len(list(drawing.iter("polygon"))) == 1  # the original model
    ends = [(float(e.get("y1", 0)), float(e.get("y2", 0))) for e in drawing.iter("line") if e.get("class") == "error"]
    assert len(ends) == len(members)
    assert all(y1 > y2 for y1, y2 in ends)


def test_of_very_many_trials_those_near_the_front_are_drawn() -> None:
    draw = np.random.default_rng(0)
    spots, ours = draw.random((9000, 2)), np.array([(0.0, 1.0), (0.2, 1.2)])
    chosen = scatter.nearest(spots, ours, scatter.MOST)
    assert len(set(chosen.tolist())) == scatter.MOST
    ranked = np.argsort(np.min([((spots - o) ** 2).sum(axis=1) for o in ours], axis=0))
    assert set(ranked[: scatter.MOST // 2 - 20].tolist()) <= set(chosen.tolist())  # both axes range over about one


def test_a_report_says_where_only_some_trials_are_drawn() -> None:
    trials = some(90)
    caption = scatter.pareto_picture(replace(made(trials), trials=trials[::3]), "size_ratio", "top1").caption
    assert caption.endswith("Of 90 trials those once on the front and an even choice.")
    assert "even choice" not in scatter.pareto_picture(made(trials), "size_ratio", "top1").caption


@pytest.mark.parametrize("seed", range(3))
def test_the_growth_of_the_front_is_its_share_after_every_trial(seed: int) -> None:
    trials = some(80, seed)
    trials[5] = Trial(5, Policy({}), state=TrialState.FAILED, reason="nan")
    steps = growth(trials)
    shares = [covered(trials[: n + 1], SPEC.objectives, SPEC.constraints, BASELINE) for n in range(len(trials))]
    known = {step.done: step.share for step in steps}
    now = 0.0
    for done, share in enumerate(shares, 1):
        now = known.get(done, now)
        assert now == pytest.approx(share)
    assert steps[-1].seconds == 2.0 * sum(t.state is TrialState.COMPLETE for t in trials[: steps[-1].done])


def test_strips_show_what_a_group_and_a_layer_lose() -> None:
    found = made([trial(3, 0.9, 0.5)])
    text = to_html(document(found))
    hints = [e.findtext("title") for drawing in drawings(text) for e in drawing.iter("rect")]
    assert "trial 3, stem\nprune_ratio 0.3" in hints
    assert "trial 3, tail\nprune_ratio 0.3" in hints
    assert "trial 3, mid\nnothing asked" in hints
    assert "trial 3, mid\nweight_bits 2" in hints


def test_of_a_long_front_an_even_choice_with_the_picked_one_is_shown() -> None:
    trials = [trial(n, n / 100, (n + 1) / 100) for n in range(60)]
    found = made(trials, picked=trials[31])
    shown = chosen(found)
    assert len(found.front) == 60
    assert len(shown) <= MOST_STRIPS
    assert {trials[31].number, found.front[0].number, found.front[-1].number} <= {t.number for t in shown}
    assert [t.number for t in shown] == [t.number for t in found.front if t in shown]


def test_every_section_says_what_the_study_says() -> None:
    failed = [Trial(n, Policy({}), state=TrialState.FAILED, reason="nan", message=f"step {n}") for n in (61, 62)]
    more = replace(SPEC, revision=1, budget=Budget(trials=130), proposer=Part("nsga2", {"population": 30}))
    text = to_markdown(document(made([*some(60), *failed], revisions=(SPEC, more), storage="a b.db")))
    sections = dict(re.findall(r"^## (.*?)\n\n(.*?)(?=\n## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == [
        "What was asked", "The original and the picked model", "The front", "How the search went",
        "The front, layer by layer", "What mattered", "How sure the numbers are", "Failures", "How to repeat it",
    ]  # fmt: skip
    asked = sections["What was asked"]
    for said in ("top1: maximize, size_ratio: minimize", "prune, then quantize", "prune_ratio 0..0.5 step 0.1"):
        assert said in asked
    assert (
        r"| 1 | 0 | nsga2 (population 30) | 130 | top1: maximize, size_ratio: minimize | macs_ratio \<= 0.9 |" in asked
    )
    assert (
        "| nan | failed | 2 | a loss or a metric became NaN or infinite | trial 62: step 62 |" in sections["Failures"]
    )
    assert "top1 ± 0.0100" in sections["How sure the numbers are"]
    assert sections["What mattered"].strip() == "too few trials"
    repeat = sections["How to repeat it"]
    assert "automc extend demo --trials +30 --proposer nsga2 --set proposer.settings.population=30" in repeat
    assert "automc export demo/" in repeat
    assert "--storage 'a b.db'" in repeat
    for lines in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines.splitlines()}
        assert len(widths) == 1


@pytest.mark.parametrize("trials", [[], [trial(0, 0.5, 0.5, macs=0.95)], [Trial(0, Policy({}))]])
def test_a_study_without_a_front_has_a_report_too(trials: list[Trial]) -> None:
    found = made(trials)
    Page(to_html(document(found)))
    assert "There is no front yet" in to_markdown(document(found))


def test_one_objective_is_drawn_over_a_constraint() -> None:
    spec = replace(SPEC, objectives=(Objective("top1"),))
    found = made(some(20), revisions=(spec,))
    assert any("top1 over macs_ratio" in (d.get("aria-label") or "") for d in drawings(to_html(document(found))))


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 1.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ([17.0, 83.0], [20.0, 40.0, 60.0, 80.0]),
        ([0.01, 1.0], [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]),
        ([1.0, 1e9], [1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]),
    ],
)
def test_ticks_are_round_and_inside(values: list[float], ticks: list[float]) -> None:
    found = scale(values, 100, 200)
    assert found.ticks() == pytest.approx(ticks)
    assert all(100 <= found(tick) <= 200 for tick in ticks)


def test_a_scale_of_one_value_is_still_one() -> None:
    assert scale([5.0], 0, 100)(5.0) == pytest.approx(50)
    assert Scale(1, 100, 0, 2, log=True)(10) == pytest.approx(1)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (0.05, "0.05"), (1500, "1.5k"), (2e6, "2M"), (-3e9, "-3G")])
def test_brief_numbers(value: float, text: str) -> None:
    assert brief(value) == text


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("sqlite:///a@b.db", "sqlite:///a@b.db"),
        ("runs/a:b@c.db", "runs/a:b@c.db"),
    ],
)
def test_a_password_is_not_shown(storage: str, shown: str) -> None:
    assert without_password(storage) == shown


def test_plain_text_is_no_markup() -> None:
    assert plain("a|b *c* <d>\n[e](f) `g` \\ &") == r"a\|b \*c\* \<d\> \[e\](f) \`g\` \\ &amp;"
