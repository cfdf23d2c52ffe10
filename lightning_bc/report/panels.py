"""Panels: the methods of a chart by the question that a reader asks of them, few enough to be told apart."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bc.report.chart import Chart, Method
from lightning_bc.report.labels import counted, unique_labels

CURVES = 7
"""Curves in one panel; more of them cannot be followed."""

@dataclass(frozen=True)
class Panel:
    """Methods that are compared with each other.

    Attributes:
        title: what they have in common.
        methods: at most :data:`CURVES`, best first.
        names: what tells each from the others of the panel, in the order of ``methods``.
    """

    title: str
    methods: tuple[Method, ...]
    names: tuple[str, ...]


def make_panels(chart: Chart) -> list[Panel]:
    """The panels of a chart; each method is in one of them.

    Those that learn from demonstrations alone are first, by kind of actions: with all demonstrations (the most that a
    method of the chart was given), then with fewer. Those that act in the environment or query an expert while they learn
    are last, whatever demonstrations they had: what they use beside these is what decides.
    """
    interacting = [method for method in chart.methods if _interacts(method)]
    kinds: dict[str, list[Method]] = defaultdict(list)
    for method in chart.methods:
        if method not in interacting:
            kinds[_kind(method)].append(method)
    panels, fewer = [], defaultdict(list)
    for kind in sorted(kinds):
        most = max(map(_pairs, kinds[kind]))
        for method in kinds[kind]:
            if _pairs(method) < most:
                fewer[_pairs(method)].append(method)
        panels += _panels("All demonstrations", [method for method in kinds[kind] if _pairs(method) == most])
    groups = [fewer[pairs] for pairs in sorted(fewer, reverse=True)]
    if sum(map(len, groups)) <= CURVES:
        groups = [[method for group in groups for method in group]]
    for group in groups:
        panels += _panels("Fewer demonstrations", group)
    return panels + _panels("Acting in the environment or querying an expert", interacting, amount=False)


def _panels(title: str, methods: Sequence[Method], amount: bool = True) -> list[Panel]:
    """One panel, or several by rank; none of no methods. With ``amount``, its title says what was learnt from."""
    methods = sorted(methods, key=lambda method: method.rank)
    if amount and methods:
        title += f": {_amount(methods)}"
    found = []
    for first in range(0, len(methods), CURVES):
        part = tuple(methods[first : first + CURVES])
        ranks = f", ranks {first + 1} to {first + len(part)}" if len(methods) > CURVES else ""
        names = unique_labels([method.strategy for method in part], [method.details for method in part])
        found.append(Panel(title + ranks, part, tuple(names)))
    return found


def _amount(methods: Sequence[Method]) -> str:
    """What a group learnt from, in words."""
    data = [source for method in methods if (source := method.runs[0].results.data) is not None]
    if not data:
        return "none"                                               # no strategy of ours, but results may say so
    episodes = sorted({source.training_episodes for source in data})
    kinds = {kind for method in methods if (kind := _kind(method))}
    amount = counted(episodes[-1], "episode")
    if len(episodes) > 1:
        amount = f"{episodes[0]:,} to {amount}"
    return amount + (f", {kinds.pop()}" if len(kinds) == 1 else "")


def _interacts(method: Method) -> bool:
    return bool(method.row.environment_steps or method.row.expert_queries)


def _pairs(method: Method) -> int:
    data = method.runs[0].results.data
    return 0 if data is None else data.training_pairs


def _kind(method: Method) -> str:
    data = method.runs[0].results.data
    return "" if data is None or data.actions is None else f"{data.actions} actions"
