"""The pages at / and /docs, in an installed Chromium (apt install chromium). Without one the tests are skipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
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
expect.set_options(timeout=SLOW_MS)


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


def until(page: Page, condition: Callable[[], object]) -> None:
    end = time.monotonic() + SLOW_MS / 1000
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(50)


def two_people(page: Page) -> None:
    """Ask about a picture in which two people are found."""
    person = {"keypoints": [], "posture": "standing", "alerts": []}
    people = [
        person | {"confidence": confidence, "bbox": {"x": x, "y": 10.0, "width": 60.0, "height": 120.0}}
        for x, confidence in ((10.0, 0.9), (150.0, 0.6))
    ]

    def enrich(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        if "pose_estimator" in body["results"]:
            body["results"]["pose_estimator"]["persons"] = people
        route.fulfill(response=answer, json=body)

    page.route("**/enrich", enrich)
    answered(page, encoded(plain(YELLOW, (320, 240))))


def test_five_answers_about_one_picture(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    titles = page.locator("#verdicts dt").all_inner_texts()
    assert titles == ["People", "Weapons", "Re-identification", "Pet", "Distance"]
    assert page.locator("#verdicts dd").first.inner_text().startswith("1: ")
    for name in ("read and decode", "People", "Distance"):
        expect(page.locator("#timings")).to_contain_text(name)
    assert json.loads(page.locator("#json").text_content() or "")["image"] == {"width": 320, "height": 240}


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
    expect(page.locator("#verdicts dd").first).to_have_text("One person is less certain than the slider asks for.")
    expect(page.locator("#verdicts dd").nth(1)).to_have_text("One weapon is less certain than the slider asks for.")
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


def test_the_keyboard_draws_a_box_and_all_models_answer_for_it(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    page.focus("#canvas")
    requests = asked(page)
    for key in ("ArrowLeft", "Enter", *["ArrowLeft"] * 10, *["ArrowUp"] * 10):
        page.keyboard.press(key)
    expect(page.locator("#under")).to_contain_text("depth")
    page.keyboard.press("Enter")
    expect(page.locator("body[aria-busy=false]")).to_be_attached()
    expect(page.locator("#whole")).to_be_visible()
    assert len(requests) == 1
    sent = page.locator("#curl").text_content() or ""
    assert "bbox=[90,56,154,120]" in sent
    assert sent.count('"on":"boxes"') == 2
    titles = page.locator("#verdicts dt").all_inner_texts()
    assert {"People in the box", "Weapons in the box", "Pet in the box"} <= set(titles)
    assert "People" not in titles


def test_the_keyboard_keeps_its_place_in_the_answers(page: Page) -> None:
    two_people(page)
    page.locator("#verdicts button").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Choose person 2 for a comparison"
    assert page.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    page.evaluate("document.querySelector('#verdicts li').dataset.kept = 'yes'")
    page.fill("#reveal", "40")
    assert page.evaluate("document.querySelector('#verdicts li').dataset.kept") == "yes"  # nothing is read anew


def test_a_value_of_the_last_picture_is_gone_with_it(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    page.hover("#canvas")
    expect(page.locator("#under")).to_contain_text("depth")
    page.mouse.move(1, 1)
    answered(page, encoded(plain(YELLOW, (100, 90))))
    assert page.locator("#under").inner_text() == ""


def test_a_sample_that_can_not_be_had_is_said(page: Page) -> None:
    page.route("**/samples/*", lambda route: route.abort())
    page.click("[data-sample='cat.jpg']")
    expect(page.locator("#error")).to_contain_text("can't be reached")


@pytest.mark.parametrize("status", [421, 503])
def test_a_tiff_is_shown_without_the_threat_model(page: Page, status: int) -> None:
    body = json.dumps({"error": {"code": "model_unavailable", "message": "no weights", "request_id": "r1"}})
    page.route("**/threat-detect*", lambda route: route.fulfill(status=status, body=body))
    answered(page, encoded(plain(YELLOW, (320, 240)), "TIFF"))
    expect(page.locator("#verdicts")).to_contain_text("converted it to JPEG")


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
    until(page, lambda: bool(held))
    answered(page, encoded(plain((0, 0, 0), (100, 50))))
    held[0].abort()
    page.wait_for_timeout(300)
    assert page.evaluate("[canvas.width, canvas.height]") == [100, 50]


def test_a_picture_that_is_decoded_late_never_stands_under_later_answers(page: Page) -> None:
    page.evaluate(
        """() => {
            const real = createImageBitmap;
            window.createImageBitmap = async (source) => {
                const picture = await real(source);
                if (source.name === "late.png") await new Promise((done) => { window.letGo = done; });
                return picture;
            };
        }"""
    )
    choose(page, encoded(plain((255, 0, 0), (320, 240))), "late.png")
    until(page, lambda: page.evaluate("Boolean(window.letGo)"))
    answered(page, encoded(plain((0, 0, 255), (100, 50))))
    page.evaluate("letGo()")
    page.wait_for_timeout(300)
    page.fill("#reveal", "1")  # draws again
    right = page.evaluate("[...document.getElementById('canvas').getContext('2d').getImageData(90, 40, 1, 1).data]")
    assert right == [0, 0, 255, 255]
    assert page.evaluate("[canvas.width, canvas.height]") == [100, 50]


def test_the_curl_command_is_the_same_question(page: Page, tmp_path: Path) -> None:
    name, image = 'it\'s; a,"b" photo.png', encoded(plain(YELLOW, (320, 240)))
    (tmp_path / name).write_bytes(image)
    choose(page, image, name)
    expect(page.locator("#answers")).to_be_visible(timeout=SLOW_MS)
    command = page.locator("#curl").text_content() or ""
    done = subprocess.run(["bash", "-c", f"{command} --silent"], cwd=tmp_path, capture_output=True, check=True)
    shown, found = json.loads(page.locator("#json").text_content() or ""), json.loads(done.stdout)
    for answer in (shown, found):
        answer["results"]["depth_estimator"].pop("depth_map_base64")
        for result in answer["results"].values():
            result.pop("inference_time_ms")
    assert found["results"] == shown["results"]
    assert found["errors"] == shown["errors"]


def test_a_click_is_no_box_and_other_buttons_ask_nothing(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (4000, 3000)), "JPEG"))
    requests = asked(page)
    place = page.locator("#canvas").bounding_box()
    assert place is not None
    x, y = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    for button, far in (("left", 3), ("right", 60)):  # pixels of the screen; 3 are over 8 of the picture
        page.mouse.move(x, y)
        page.mouse.down(button=button)  # type: ignore[arg-type]
        page.mouse.move(x + far, y + far)
        page.mouse.up(button=button)  # type: ignore[arg-type]
    page.wait_for_timeout(200)
    assert requests == []


def test_a_box_without_an_answer_leaves_no_mark(page: Page) -> None:
    answered(page, encoded(plain(YELLOW, (320, 240))))
    before = pixels(page)
    page.route("**/enrich", lambda route: route.abort())
    place = page.locator("#canvas").bounding_box()
    assert place is not None
    page.mouse.move(place["x"] + 20, place["y"] + 20)
    page.mouse.down()
    page.mouse.move(place["x"] + 120, place["y"] + 120, steps=3)
    page.mouse.up()
    expect(page.locator("#error")).to_be_visible()
    assert pixels(page) == before


def test_a_comparison_survives_other_controls_and_ends_with_its_people(page: Page) -> None:
    held: list[Route] = []
    two_people(page)
    page.route("**/person-reid/compare", lambda route: held.append(route))
    for number in (1, 2):
        page.click(f"[aria-label='Choose person {number} for a comparison']")
    until(page, lambda: len(held) == 1)
    page.fill("#reveal", "30")
    page.uncheck("[data-layer=limbs]")
    held[0].continue_()
    expect(page.locator("#compare")).to_be_visible()
    page.fill("#confidence", "80")  # hides the second person
    expect(page.locator("#compare")).to_be_hidden()


def test_a_question_can_be_stopped(page: Page) -> None:
    held: list[Route] = []
    page.route("**/enrich", lambda route: held.append(route))
    choose(page, encoded(plain(YELLOW)))
    until(page, lambda: bool(held))
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
