"""The page: one viewer's view of the shared monitor."""

from collections.abc import Mapping, Sequence
from datetime import UTC, timedelta, timezone, tzinfo
from typing import Any

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from classifier.contracts import LABELS
from dashboard import display
from dashboard.follow import Filter, Follower
from dashboard.health import Endpoint, State
from dashboard.monitor import CHART_POINTS, Monitor, Snapshot
from dashboard.rows import worker_row
from dashboard.tiles import tiles
from dashboard.widgets import HealthChips, Line, LiveChart, Tail, Text, TileCard, faults, show_data

TITLE = "Semantic load balancer"
THEMES: dict[str, bool | None] = {"auto": None, "light": False, "dark": True}
COLORS = {str(label): f"--slb-{label}" for label in LABELS}
OWN_COLORS = 6
"""Own labels take turns at these colours of the stylesheet."""
WORKER_COLUMNS = (
    ("pool", "Pool", "left"),
    ("worker", "Worker", "left"),
    ("inflight", "In flight", "right"),
    ("per_second", "Req/s", "right"),
    ("requests", "Requests", "right"),
    ("errors", "Errors", "right"),
    ("share", "Share of pool", "left"),
)
POOL_CELL = """
<q-td :props="props">
  <span class="label-chip" :data-label="props.value">{{ props.value }}</span>
</q-td>
"""
SHARE_CELL = """
<q-td :props="props"><span class="share">
  <span class="bar"><i :style="{ width: 100 * Math.max(0, props.value) + '%' }"></i></span>
  {{ props.row.share_text }}
</span></q-td>
"""
# What only the viewer's browser knows: its time zone, and the theme chosen on an earlier visit.
ASK_BROWSER = "return [-new Date().getTimezoneOffset(), localStorage.getItem('slb-theme')]"


def colors_of(labels: Sequence[str]) -> dict[str, str]:
    """The stylesheet's variable for each label's colour."""
    own = [label for label in labels if label not in COLORS]
    turns = {label: f"--slb-own-{at % OWN_COLORS + 1}" for at, label in enumerate(own)}
    return {**COLORS, **turns}


def chip_style(colors: Mapping[str, str]) -> str:
    """Rules that colour what carries an own label; labels are words, so nothing needs quoting."""
    return " ".join(
        f'[data-label="{label}"] {{ --slb-own: var({color}); }}'
        for label, color in colors.items()
        if label not in COLORS
    )


class Page:
    """Built once for each viewer; `tick` brings it up to date."""

    def __init__(self, monitor: Monitor, refresh_seconds: float) -> None:
        """Build the page around what `monitor` knows."""
        self._monitor = monitor
        self._follower = Follower(monitor.decisions)
        self._zone: tzinfo = UTC
        self._points_sent = 0
        self._workers_shown: list[dict[str, Any]] = []
        self._page_title = TITLE
        self._dark = ui.dark_mode(None)
        with ui.element("header").classes("top"):
            Text("h1", TITLE)
            self._chips = HealthChips()
            self._theme = Text("button", classes="plain-button").props("type=button")
            self._theme.on("click", self._next_theme)
        self._banner = Text("div", classes="banner").props("role=alert")
        self._labels: tuple[str, ...] = ()
        self._pools: tuple[str, ...] = ()
        self._own_colors = Text("style")
        self._build_tiles()
        self._build_charts(CHART_POINTS * refresh_seconds)
        self._build_workers()
        self._build_tail()
        self._theme_chosen = False
        self._show_theme("auto")
        self.tick()
        ui.timer(refresh_seconds, self.tick)

    async def meet_browser(self) -> None:
        """Take over time zone and theme from the viewer's browser, once it is there."""
        answer = await ui.run_javascript(ASK_BROWSER, timeout=5.0)
        if not isinstance(answer, list):
            return
        minutes, theme = answer
        self._zone = timezone(timedelta(minutes=int(minutes)))
        # The browser's answer may come after the viewer's first click, which it does not know of.
        if not self._theme_chosen:
            self._show_theme(theme if theme in THEMES else "auto")

    def tick(self) -> None:
        """Show what is new."""
        snapshot = self._monitor.snapshot()
        self._follow_labels(snapshot)
        self._show_health(snapshot)
        self._show_tiles(snapshot)
        self._show_charts()
        self._show_workers(snapshot)
        self._show_tail()

    def _build_tiles(self) -> None:
        with ui.element("section").classes("tiles").props('aria-label="Key figures"'):
            self._tiles = [TileCard() for _ in tiles(self._monitor.snapshot())]

    def _build_charts(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        with ui.element("section").classes("charts").props('aria-label="Charts"'):
            self._charts = [ui.element("article").classes("panel chart") for _ in range(2)]
            with self._charts[0]:
                Text("h2", "Requests per second by label")
                self._rates = self._live_chart([], unit="rate")
            with self._charts[1]:
                Text("h2", "Latency by pool: p99 solid, p50 dashed")
                self._latencies = self._live_chart([], unit="seconds")

    def _live_chart(self, lines: Sequence[Line], unit: str) -> LiveChart:
        return LiveChart(
            lines,
            unit=unit,
            stacked=unit == "rate",
            span_seconds=self._span_seconds,
            limit=CHART_POINTS,
        )

    def _follow_labels(self, snapshot: Snapshot) -> None:
        """Show the labels and pools that the proxy has now."""
        if (snapshot.labels, snapshot.pools) == (self._labels, self._pools):
            return
        self._labels, self._pools = snapshot.labels, snapshot.pools
        colors = colors_of(self._labels)
        self._own_colors.text = chip_style(colors)
        choices = {"": "all", **{str(label): str(label) for label in self._labels}}
        chosen = self._label.value if self._label.value in choices else ""
        self._label.set_options(choices, value=chosen)
        self._rates.delete()
        self._latencies.delete()
        with self._charts[0]:
            lines = [Line(label, colors[label]) for label in self._labels]
            self._rates = self._live_chart(lines, unit="rate")
        with self._charts[1]:
            lines = [
                Line(pool, colors.get(pool, "--slb-other"), dashed=name == "p50", detail=name)
                for pool in self._pools
                for name in ("p50", "p99")
            ]
            self._latencies = self._live_chart(lines, unit="seconds")
        self._points_sent = 0

    def _build_workers(self) -> None:
        columns = [
            {"name": name, "field": name, "label": label, "align": align, "sortable": True}
            for name, label, align in WORKER_COLUMNS
        ]
        with ui.element("section").classes("panel workers") as self._workers_panel:
            Text("h2", "Workers")
            self._workers = ui.table(rows=[], columns=columns, row_key="key").props(
                'flat dense hide-bottom binary-state-sort aria-label="Workers"'
            )
            self._workers.add_slot("body-cell-pool", POOL_CELL)
            self._workers.add_slot("body-cell-share", SHARE_CELL)

    def _build_tail(self) -> None:
        with ui.element("section").classes("panel decisions") as self._tail_panel:
            with ui.element("div").classes("tail-bar"):
                Text("h2", "Decisions")
                self._label = ui.toggle({"": "all"}, value="", on_change=self._filter)
                self._label.props('dense flat no-caps aria-label="Filter by label"')
                self._search = ui.input(
                    placeholder="filter: words, or -word to leave out", on_change=self._filter
                ).props('dense outlined type=search debounce=200 aria-label="Filter by text"')
                self._pause = Text("button", classes="plain-button pause").props("type=button")
                self._pause.on("click", self._toggle_pause)
            self._tail = Tail("No decision fits.")

    def _show_health(self, snapshot: Snapshot) -> None:
        self._chips.show(snapshot.health)
        text = faults(snapshot.health, self._zone)
        self._banner.text = text
        self._banner.set_visibility(bool(text))
        title = f"⚠ {TITLE}" if text else TITLE
        if title != self._page_title:
            self._page_title = title
            ui.page_title(title)

    def _show_tiles(self, snapshot: Snapshot) -> None:
        health = snapshot.health
        stale = frozenset(name for name in health if health[name].state is State.FAILED)
        for card, tile in zip(self._tiles, tiles(snapshot), strict=True):
            card.show(tile, stale, display.clock(health[tile.source].last_ok, self._zone))
        for chart in self._charts:
            show_data(chart, "stale", str(Endpoint.PROXY_METRICS in stale).lower())
        show_data(self._workers_panel, "stale", str(Endpoint.POOLS in stale).lower())
        show_data(self._tail_panel, "stale", str(Endpoint.DECISIONS in stale).lower())

    def _show_charts(self) -> None:
        points = [point for _, point in self._monitor.points.since(self._points_sent)]
        if points:
            self._points_sent = self._monitor.points.last
            self._rates.push(point.rates_of(self._labels) for point in points)
            self._latencies.push(point.latencies_of(self._pools) for point in points)

    def _show_workers(self, snapshot: Snapshot) -> None:
        rows: list[dict[str, Any]] = [dict(worker_row(worker)) for worker in snapshot.workers or ()]
        if rows != self._workers_shown:
            self._workers_shown = rows
            self._workers.update_rows(rows)

    def _show_tail(self) -> None:
        update = self._follower.pull()
        if update is not None:
            self._tail.push(update)
        if self._follower.paused:
            self._pause.text = f"Resume ({self._follower.waiting():,} new)"
        else:
            self._pause.text = "Pause"
        show_data(self._pause, "on", str(self._follower.paused).lower())

    def _filter(self, _: ValueChangeEventArguments[Any]) -> None:
        self._follower.choose(Filter.parse(self._label.value or "", self._search.value or ""))
        self._show_tail()

    def _toggle_pause(self) -> None:
        self._follower.paused = not self._follower.paused
        self._show_tail()

    def _next_theme(self) -> None:
        names = list(THEMES)
        theme = names[(names.index(self._theme_name) + 1) % len(names)]
        self._theme_chosen = True
        self._show_theme(theme)
        ui.run_javascript(f"localStorage.setItem('slb-theme', '{theme}')")

    def _show_theme(self, theme: str) -> None:
        self._theme_name = theme
        self._theme.text = f"Theme: {theme}"
        self._dark.value = THEMES[theme]
