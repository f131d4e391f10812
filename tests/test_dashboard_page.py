"""The dashboard's page in a real browser, in front of the real classifier, workers and proxy."""

import http.client
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.processes import Stack, clean_env, free_port, running, stack
from tests.servers import decision_feed, serving
from tests.test_own_labels import site_in, workers_in

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
HOSTILE = "/<img/src/onerror=window.owned=1>/{{7*7}}/<b>bold</b>"
DEADLINE_MS = 15_000

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: install Debian's chromium"),
]


@dataclass
class Dashboard:
    stack: Stack
    url: str


@dataclass
class Seen:
    """What a browser page complained about, and whom it talked to."""

    complaints: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def note(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory) -> Iterator[Dashboard]:
    cwd = tmp_path_factory.mktemp("dashboard")
    with stack(cwd) as parts, ExitStack() as contexts:
        classifier_url = f"http://127.0.0.1:{parts.classifier_port}"
        url = contexts.enter_context(dashboard_of(cwd, parts.proxy.control, classifier_url))
        yield Dashboard(parts, url)


@contextmanager
def dashboard_of(cwd: Path, control_url: str, classifier_url: str) -> Iterator[str]:
    """A dashboard process that looks at these addresses; yields its own."""
    port = free_port()
    env = clean_env(
        DASHBOARD_PORT=port,
        PROXY_METRICS_URL=control_url,
        CLASSIFIER_URL=classifier_url,
        DASHBOARD_REFRESH_SECONDS=0.5,
    )
    url = f"http://127.0.0.1:{port}"
    with running([sys.executable, "-m", "dashboard"], cwd, env, f"{url}/healthz", "dashboard"):
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, dashboard: Dashboard) -> Iterator[Page]:
    with viewer(browser, dashboard.url) as page:
        yield page


@contextmanager
def viewer(browser: Browser, url: str) -> Iterator[Page]:
    """A fresh viewer; at the end it must have been content and have kept to one host."""
    seen = Seen()
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        expect.set_options(timeout=DEADLINE_MS)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("console", lambda message: seen.note(message.type, message.text))
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).netloc))
        page.on("websocket", lambda socket: seen.hosts.add(urlsplit(socket.url).netloc))
        page.goto(url)
        yield page
        assert seen.complaints == []
        assert seen.hosts - {""} == {urlsplit(url).netloc}


@contextmanager
def traffic(proxy_url: str) -> Iterator[None]:
    """Some requests of every kind, again and again."""
    stop = threading.Event()

    def send() -> None:
        with httpx.Client(base_url=proxy_url, trust_env=False) as client:
            while not stop.wait(0.02):
                client.get("/healthz")
                client.get("/users/42")
                client.post("/v1/chat/completions", json={"messages": [{"role": "user"}]})

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def send_raw(proxy_port: int, path: str) -> None:
    """A path exactly as written; proper clients would escape it."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy_port, timeout=10)
    connection.putrequest("GET", path)
    connection.endheaders()
    assert connection.getresponse().status == 200
    connection.close()


def tile(page: Page, title: str):
    heading = page.get_by_role("heading", name=title, exact=True)
    return page.locator("article.tile").filter(has=heading)


def row(page: Page, text: str):
    return page.locator(".tail tbody tr").filter(has_text=text).first


def has_figure(page: Page, title: str) -> None:
    expect(tile(page, title).locator("strong")).to_have_text(re.compile("[1-9]"))


def test_the_tiles_show_what_goes_through(page: Page, dashboard: Dashboard) -> None:
    with traffic(dashboard.stack.proxy.url):
        for title in ("Requests", "Latency p50 · p99", "Deciding p50 · p99", "Cache hits"):
            has_figure(page, title)
        expect(tile(page, "Errors").locator("strong")).to_have_text("0 %")
        expect(tile(page, "Classifier coverage").locator("strong")).to_have_text("100 %")
        expect(tile(page, "LLM").locator("strong")).to_have_text("off")
        expect(page.locator(".chip[data-state=ok]")).to_have_count(5)
        workers = page.locator(".workers tbody tr")
        expect(workers).to_have_count(3)
        port = dashboard.stack.worker_ports["fast-path"][0]
        expect(workers.filter(has_text=f"127.0.0.1:{port}")).to_contain_text("100 %")
        for chart in page.locator(".live-chart canvas").all():
            expect(chart).to_be_visible()


def test_the_tail_shows_a_request_with_label_and_reason(page: Page, dashboard: Dashboard) -> None:
    httpx.get(f"{dashboard.stack.proxy.url}/orders/4711/tracking", trust_env=False)
    decided = next(
        found
        for found in reversed(dashboard.stack.proxy.decisions())
        if found["path"] == "/orders/4711/tracking"
    )

    shown = row(page, "/orders/4711/tracking")

    expect(shown.locator(".label")).to_have_text(decided["label"])
    expect(shown.locator(".reason")).to_have_text(decided["reason"])
    assert decided["reason"]
    expect(shown.locator(".worker")).to_have_text(decided["worker"])
    expect(shown.locator(".status")).to_have_text("200")
    shown.get_by_role("button").click()
    detail = page.get_by_role("dialog")
    expect(detail).to_contain_text(decided["id"])
    page.keyboard.press("Escape")
    expect(detail).not_to_be_visible()


def test_the_tail_is_filtered_by_label_and_words_and_can_stand_still(
    page: Page, dashboard: Dashboard
) -> None:
    with traffic(dashboard.stack.proxy.url):
        page.get_by_label("Filter by text").fill("healthz")
        expect(row(page, "/users/42")).to_have_count(0)
        label = row(page, "/healthz").locator(".label").inner_text()
        page.get_by_label("Filter by text").fill("")
        page.get_by_role("button", name=label, exact=True).click()
        expect(page.locator(f".tail .label-chip:not([data-label={label}])")).to_have_count(0)

        page.get_by_role("button", name="Pause").click()
        resume = page.get_by_role("button", name="Resume")
        expect(resume).to_be_visible()
        first = page.locator(".tail tbody tr").first.inner_text()
        expect(resume).not_to_have_text("Resume (0 new)")
        assert page.locator(".tail tbody tr").first.inner_text() == first
        assert page.locator(".tail tbody tr").count() <= 200
        resume.click()
        expect(page.locator(".tail tbody tr").first).not_to_have_text(first)


def test_own_labels_are_shown_in_colours_of_their_own(browser: Browser, tmp_path: Path) -> None:
    with (
        workers_in(tmp_path) as ports,
        site_in(tmp_path, ports) as site,
        dashboard_of(tmp_path, site.proxy.control, site.proxy.control) as url,
        viewer(browser, url) as page,
    ):
        site.send("GET", "/reports/daily")
        page.get_by_role("button", name="reports", exact=True).click()
        chip = row(page, "/reports/daily").locator(".label-chip")
        expect(chip).to_have_css("color", own_color(page, 1))
        expect(page.locator(".live-chart canvas")).to_have_count(2)

        site.write(site.file.read_text() + '[labels.later]\npool = "reports"\n')
        assert site.reload().json()["changed"] == ["LABELS_FILE"]

        expect(page.get_by_role("button", name="later", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="reports", pressed=True)).to_be_visible()
        expect(page.locator(".live-chart canvas")).to_have_count(2)


def own_color(page: Page, number: int) -> str:
    """The stylesheet's colour of that number, as browsers tell it."""
    return page.evaluate(
        """number => {
          const probe = document.body.appendChild(document.createElement("i"));
          probe.style.color = `var(--slb-own-${number})`;
          const color = getComputedStyle(probe).color;
          probe.remove();
          return color;
        }""",
        number,
    )


def test_a_hostile_path_is_masked_by_the_proxy(page: Page, dashboard: Dashboard) -> None:
    send_raw(dashboard.stack.proxy.port, HOSTILE)

    expect(row(page, "***").first).to_be_visible()
    assert page.locator(".tail img, .tail b").count() == 0


def test_a_hostile_decision_is_text_and_nothing_else(browser: Browser, tmp_path: Path) -> None:
    """The page trusts no feed: here one that masks nothing."""
    event = {"id": "1", "time": 1.0, "method": "GET", "path": HOSTILE, "label": "general"}
    event |= {"source": "local", "cached": False, "confidence": 0.5, "reason": HOSTILE}
    event |= {"pool": "general", "worker": HOSTILE, "status": 200, "error": None}
    event |= {"classify_ms": 1.0, "total_ms": 2.0}
    with (
        serving(decision_feed([event])) as feed_url,
        dashboard_of(tmp_path, feed_url, feed_url) as url,
        viewer(browser, url) as page,
    ):
        shown = row(page, "onerror")

        expect(shown.locator(".path")).to_have_text(HOSTILE)
        shown.click()
        expect(page.get_by_role("dialog")).to_contain_text(HOSTILE)
        page.reload()
        expect(row(page, "onerror").locator(".path")).to_have_text(HOSTILE)
        assert page.evaluate("window.owned") is None
        assert page.locator(".tail img, .tail b").count() == 0


def test_light_and_dark_follow_the_viewer(page: Page) -> None:
    button = page.get_by_role("button", name="Theme: auto")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)

    button.click()
    page.get_by_role("button", name="Theme: light").click()
    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    page.wait_for_function(f"before => {background} !== before", arg=light)
    page.reload()

    expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
    page.wait_for_function(f"before => {background} !== before", arg=light)


def test_a_phone_needs_no_sideways_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})

    assert page.evaluate("document.documentElement.scrollWidth") <= 390


# The last test: there is no proxy after it.
def test_a_dead_proxy_is_said_and_not_shown_as_zero(page: Page, dashboard: Dashboard) -> None:
    with traffic(dashboard.stack.proxy.url):
        # At least ten a second: what is left of an earlier test's traffic is less.
        expect(tile(page, "Requests").locator("strong")).to_have_text(re.compile(r"^\d{2}"))
    dashboard.stack.proxy.started.process.kill()

    expect(page.get_by_role("alert")).to_contain_text("Proxy metrics unreachable since ")
    expect(page.locator(".chip[data-state=failed]")).to_have_count(3)
    expect(page.locator(".chip[data-state=ok]")).to_have_count(2)
    expect(page).to_have_title("⚠ Semantic load balancer")
    requests = tile(page, "Requests")
    expect(requests).to_have_attribute("data-tone", "stale")
    expect(requests).to_contain_text("last known")
    for panel in page.locator(".chart, .workers, .decisions").all():
        expect(panel).to_have_attribute("data-stale", "true")
    page.wait_for_timeout(1_500)
    assert float(requests.locator("strong").inner_text()) > 0
    expect(tile(page, "LLM")).to_have_attribute("data-tone", "plain")
