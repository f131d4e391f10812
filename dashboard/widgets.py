"""The parts of the page. Each shows a value and sends only what has changed since the last."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import tzinfo

import nicegui.elements.echart  # noqa: F401 - registers the bundle that live_chart.js imports
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from dashboard import display
from dashboard.follow import PAGE_ROWS, TailUpdate
from dashboard.health import Endpoint, Health, State
from dashboard.rows import decision_row
from dashboard.tile import Fact, Tile


class Text(TextElement):
    """An HTML element that holds text; the text is never read as markup."""

    def __init__(self, tag: str, text: str = "", classes: str = "") -> None:
        """An element of that tag."""
        super().__init__(tag=tag, text=text)
        self.classes(classes)


def show_data(element: ui.element, name: str, value: str) -> None:
    """Set a `data-` attribute, for the stylesheet to look at."""
    if element.props.get(f"data-{name}") != value:
        element.props[f"data-{name}"] = value


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart; `color` names a variable of the stylesheet.

    Lines of the same name share an entry of the legend; `detail` tells them apart elsewhere.
    """

    name: str
    color: str
    dashed: bool = False
    detail: str = ""


class LiveChart(ui.element, component="assets/live_chart.js"):
    """A chart over time that is sent new points only."""

    def __init__(
        self, lines: Sequence[Line], *, unit: str, stacked: bool, span_seconds: float, limit: int
    ) -> None:
        """An empty chart of the given lines; `unit` is "rate" or "seconds"."""
        super().__init__()
        self.props["series"] = [asdict(line) for line in lines]
        self.props["unit"] = unit
        self.props["stacked"] = stacked
        self.props["span-seconds"] = span_seconds
        self.props["limit"] = limit

    def push(self, points: Iterable[tuple[float | None, ...]]) -> None:
        """Add points: seconds since the epoch, then one value for each line, None for a gap."""
        self.run_method("push", list(points))


class Tail(ui.element, component="assets/tail.js"):
    """The list of decisions."""

    def __init__(self, empty: str) -> None:
        """An empty list, which says `empty`."""
        super().__init__()
        self.props["limit"] = PAGE_ROWS
        self.props["empty"] = empty

    def push(self, update: TailUpdate) -> None:
        """Show new rows."""
        rows = [decision_row(number, decision) for number, decision in update.rows]
        self.run_method("push", rows, update.replace)


class FactList:
    """Names and values in lines; as many as needed."""

    def __init__(self) -> None:
        """An empty list where the page is being built."""
        self._lines: list[tuple[ui.element, Text, Text]] = []
        self._root = ui.element("dl").classes("facts")

    def show(self, facts: Sequence[Fact], own: Endpoint, stale: Collection[Endpoint]) -> None:
        """Show these and no others; those of a stale endpoint look it."""
        while len(self._lines) < len(facts):
            with self._root, ui.element("div") as line:
                self._lines.append((line, Text("dt"), Text("dd")))
        for index, (line, name, value) in enumerate(self._lines):
            line.set_visibility(index < len(facts))
            if index < len(facts):
                fact = facts[index]
                name.text, value.text = fact.name, fact.value
                show_data(name, "label", fact.mark)
                show_data(line, "stale", str((fact.source or own) in stale).lower())


class TileCard:
    """A tile on the page."""

    def __init__(self) -> None:
        """An empty tile where the page is being built."""
        self._shown: tuple[Tile, Collection[Endpoint], str] | None = None
        with ui.element("article").classes("tile") as self._root:
            self._title = Text("h2")
            with ui.element("p").classes("figure"):
                self._figure = Text("strong")
                self._unit = Text("span", classes="unit")
            self._verdict = Text("p", classes="verdict")
            self._facts = FactList()

    def show(self, tile: Tile, stale: Collection[Endpoint], as_of: str) -> None:
        """Show a tile; if its endpoint is stale, as old figures of the time `as_of`."""
        if (tile, stale, as_of) == self._shown:
            return
        self._shown = tile, stale, as_of
        old = tile.source in stale
        self._title.text, self._figure.text, self._unit.text = tile.title, tile.figure, tile.unit
        self._verdict.text = f"last known, {as_of}" if old else tile.verdict
        show_data(self._root, "tone", "stale" if old else tile.tone)
        self._facts.show(tile.facts, tile.source, stale)


class HealthChips:
    """One chip for each endpoint: how it does, in words and colour."""

    WORDS: Mapping[State, str] = {State.OK: "ok", State.FAILED: "", State.WAITING: "waiting"}

    def __init__(self) -> None:
        """Chips where the page is being built."""
        with ui.element("ul").classes("chips").props('aria-label="Sources"'):
            self._chips = {endpoint: Text("li", classes="chip") for endpoint in Endpoint}

    def show(self, health: Mapping[Endpoint, Health]) -> None:
        """Show how the endpoints do."""
        for endpoint, chip in self._chips.items():
            state = health[endpoint].state
            chip.text = f"{endpoint} {self.WORDS[state] or health[endpoint].fault}"
            show_data(chip, "state", state)


def faults(health: Mapping[Endpoint, Health], zone: tzinfo) -> str:
    """A line for each endpoint that fails: since when, and when it last did not."""
    lines = []
    for endpoint, record in health.items():
        if record.state is not State.FAILED:
            continue
        line = f"{endpoint} {record.fault} since {display.clock(record.failing_since, zone)}"
        if record.last_ok is not None:
            line += f" (last answer {display.clock(record.last_ok, zone)})"
        lines.append(line)
    return "\n".join(lines)
