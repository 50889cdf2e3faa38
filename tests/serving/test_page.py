"""The pages at / and /docs, in an installed Chromium (apt install chromium). Without one the tests are skipped."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect, sync_playwright

from tests.serving.document import Document
from tests.serving.pictures import encoded, plain
from tests.serving.server import Server, serving

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

YELLOW = (200, 200, 0)  # the fake engines see a person and a threat in it
SLOW_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(bypass_csp=False)
    context.set_default_timeout(SLOW_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, server: Server) -> Iterator[Page]:
    """The page of the service with all models ready. Nothing may go wrong in its scripts."""
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(server.url)
    yield page
    assert faults == []


def choose(page: Page, image: bytes, name: str = "photo.png") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": image})


def answered(page: Page, image: bytes) -> None:
    choose(page, image)
    expect(page.locator("body[aria-busy=false]")).to_be_attached(timeout=SLOW_MS)
    expect(page.locator("#answers")).to_be_visible()


def pixels(page: Page) -> str:
    drawn: str = page.evaluate("document.getElementById('canvas').toDataURL()")
    return drawn


def asked(page: Page) -> list[Request]:
    """The requests with a picture from now on."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request) if "/enrich" in request.url else None)
    return requests


def test_five_answers_about_one_picture(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    titles = page.locator("#verdicts dt").all_inner_texts()
    assert titles == ["People", "Weapons", "Re-identification", "Pet", "Distance"]
    assert page.locator("#verdicts dd").first.inner_text().startswith("1: ")
    for name in ("read and decode", "People", "Distance"):
        expect(page.locator("#timings")).to_contain_text(name)
    assert json.loads(page.locator("#json").text_content() or "")["image"] == {"width": 320, "height": 240}
    assert "curl -F 'image=@photo.png'" in (page.locator("#curl").text_content() or "")


def test_layers_can_be_switched_and_depth_be_revealed(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    drawn = {pixels(page)}
    for layer in ("labels", "limbs", "threats", "people"):
        page.uncheck(f"[data-layer={layer}]")
        drawn.add(pixels(page))
    page.fill("#reveal", "50")
    drawn.add(pixels(page))
    assert len(drawn) == 6


def test_the_confidence_slider_asks_nothing_again(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    requests, before = asked(page), pixels(page)
    page.fill("#confidence", "95")
    expect(page.locator("#verdicts dd").first).to_have_text("Nobody was found.")
    assert pixels(page) != before
    assert requests == []


def test_a_box_drawn_on_the_picture_asks_about_that_part(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    requests = asked(page)
    place = page.locator("#canvas").bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + place["width"] * 0.25, place["y"] + place["height"] * 0.25)
    page.mouse.down()
    page.mouse.move(place["x"] + place["width"] * 0.75, place["y"] + place["height"] * 0.75, steps=3)
    page.mouse.up()
    expect(page.locator("#verdicts")).to_contain_text("Pet in the box")
    assert len(requests) == 1
    (box,) = json.loads(page.locator("#json").text_content() or "")["boxes"]
    for side, right in {"x": 80, "y": 60, "width": 160, "height": 120}.items():
        assert abs(box["bbox"][side] - right) <= 4
    page.click("#whole")
    expect(page.locator("#verdicts")).not_to_contain_text("in the box")


def test_an_upright_picture_is_shown_as_it_is_answered(page: Page) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    answered(page, encoded(plain(YELLOW, (320, 200)), "JPEG", exif=rotated))
    assert page.evaluate("[canvas.width, canvas.height]") == [200, 320]


def test_an_unusable_file_is_an_error_in_words_and_no_old_answer_stays(page: Page) -> None:
    answered(page, encoded(plain(YELLOW)))
    choose(page, b"not a picture", "notes.png")
    expect(page.locator("#error")).to_contain_text("This picture can't be used")
    expect(page.locator("#error")).to_contain_text("Request ")
    for gone in ("#answers", "#picture"):
        expect(page.locator(gone)).to_be_hidden()
    answered(page, encoded(plain(YELLOW)))
    expect(page.locator("#error")).to_be_hidden()


def test_an_answer_never_stands_under_a_later_question(page: Page) -> None:
    held: list[Route] = []
    page.route("**/enrich", lambda route: held.append(route) if not held else route.continue_())
    choose(page, encoded(plain(YELLOW, (320, 240))))
    expect(page.locator("#progress")).to_be_visible()
    expect(page.locator("#again")).to_be_disabled()
    answered(page, encoded(plain((0, 0, 0), (100, 50))))
    held[0].abort()
    page.wait_for_timeout(300)
    assert page.evaluate("[canvas.width, canvas.height]") == [100, 50]


def test_a_question_can_be_stopped(page: Page) -> None:
    held: list[Route] = []
    page.route("**/enrich", lambda route: held.append(route))
    choose(page, encoded(plain(YELLOW)))
    page.click("#stop")
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#again")).to_be_enabled()
    held[0].abort()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (429, "overloaded", "too much to do. Try again in 7 s"),
        (503, "model_unavailable", "it broke (model_unavailable)"),
    ],
)
def test_refusals_are_said_in_words(page: Page, status: int, code: str, said: str) -> None:
    body = json.dumps({"error": {"code": code, "message": "it broke", "request_id": "r1"}})
    headers = {"content-type": "application/json", "x-request-id": "r1", "retry-after": "7"}
    page.route("**/enrich", lambda route: route.fulfill(status=status, headers=headers, body=body))
    choose(page, encoded(plain(YELLOW)))
    expect(page.locator("#error")).to_contain_text(said)
    expect(page.locator("#error")).to_contain_text("Request r1")


def test_a_service_that_is_gone_is_said(page: Page) -> None:
    page.route("**/*", lambda route: route.abort())
    choose(page, encoded(plain(YELLOW)))
    expect(page.locator("#error")).to_contain_text("can't be reached")
    expect(page.locator("#service")).to_contain_text("can't be reached")


def test_models_that_fail_or_are_untrained_say_so_beside_the_others(context: BrowserContext, limited: Server) -> None:
    page = context.new_page()
    page.goto(limited.url)
    answered(page, encoded(plain(YELLOW)))
    said = dict(
        zip(page.locator("#verdicts dt").all_inner_texts(), page.locator("#verdicts dd").all_inner_texts(), strict=True)
    )
    assert "Untrained" in said["People"]
    assert "model_unavailable" in said["Distance"]
    assert "model_not_assigned" in said["Pet"]
    expect(page.locator("#states")).to_contain_text("failed")


def test_a_key_is_typed_once_and_forgotten_with_the_tab(context: BrowserContext, tmp_path: Path) -> None:
    with serving(tmp_path, {"ENRICHMENT_API_KEY": "the-key"}) as locked:
        page = context.new_page()
        page.goto(locked.url)
        expect(page.locator("#service")).to_have_text("The service is healthy and asks for an API key.")
        choose(page, encoded(plain(YELLOW)))
        expect(page.locator("#error")).to_contain_text("The service asks for an API key.")
        page.fill("#key", "a-wrong-one")
        page.press("#key", "Enter")
        expect(page.locator("#unlock-help")).to_have_text("This is not one of the service's keys.")
        page.fill("#key", "the-key")
        page.press("#key", "Enter")
        expect(page.locator("#unlock")).to_be_hidden()
        expect(page.locator("#service")).to_contain_text("Version ")
        answered(page, encoded(plain(YELLOW)))
        assert '-H "X-API-Key: $KEY"' in (page.locator("#curl").text_content() or "")
        page.reload()
        expect(page.locator("#states tr")).to_have_count(5)
        assert "the-key" not in page.url + page.content()
        other = context.new_page()
        other.goto(locked.url)
        expect(other.locator("#unlock")).to_be_visible()


def faults(page: Page) -> list[str]:
    """What axe-core finds: each rule with the places that break it."""
    found = Axe().run(page).response["violations"]
    return [f"{each['help']}: {[node['html'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(browser: Browser, server: Server, scheme: Any) -> None:
    context = browser.new_context(color_scheme=scheme, bypass_csp=True)  # axe is a script of its own
    page = context.new_page()
    page.goto(server.url)
    expect(page.locator("#states tr")).to_have_count(5)
    assert faults(page) == []
    answered(page, encoded(plain(YELLOW, (320, 240))))
    assert faults(page) == []
    context.close()


@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_nothing_is_wider_than_the_window(browser: Browser, server: Server, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.goto(server.url)
    answered(page, encoded(plain(YELLOW, (640, 360))))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_all_comes_from_the_service_itself(page: Page, server: Server) -> None:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    response = page.goto(server.url)
    assert response is not None
    answered(page, encoded(plain(YELLOW)))
    page.click("text=a person")
    expect(page.locator("body[aria-busy=false]")).to_be_attached(timeout=SLOW_MS)
    expect(page.locator("#error")).to_be_hidden()
    assert all(url.startswith(server.url) for url in urls)
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert response.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize("path", ["/docs", "/docs/"])
def test_the_apis_page_shows_every_operation_and_asks_nobody_else(
    context: BrowserContext, server: Server, document: Document, path: str
) -> None:
    page, urls, complaints = context.new_page(), [], []
    page.on("request", lambda request: urls.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))  # what its headers forbid, too
    page.on("pageerror", lambda error: complaints.append(str(error)))
    response = page.goto(f"{server.url}{path}")
    assert response is not None
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-frame-options"] == "DENY"
    operations = [each["operationId"] for item in document.content["paths"].values() for each in item.values()]
    expect(page.locator(".opblock")).to_have_count(len(operations))
    expect(page.locator(".info .title")).to_contain_text("ai-enrichment-light")
    for name in operations:
        expect(page.locator(f"[id$=-{name}]")).to_have_count(1)
    page.click("#operations-state-livez .opblock-summary-control")
    page.click("#operations-state-livez .try-out__btn")
    page.click("#operations-state-livez .execute")
    expect(page.locator("#operations-state-livez .live-responses-table")).to_contain_text("alive")
    assert all(url.startswith((server.url, "data:")) for url in urls), urls
    assert complaints == []


def test_every_sample_is_there() -> None:
    static = Path(__file__).parents[2] / "api" / "page" / "static"
    named = re.findall(r'data-sample="([\w.]+)"', (static / "index.html").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(path.name for path in (static / "samples").iterdir())
