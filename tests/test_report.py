"""The demonstration's report in a real browser: drawn, sorted, filtered, without network, readable on a phone, accessible."""

import base64
import contextlib
import json
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium and chromedriver here"
)
WIDTHS = {"phone": 390, "desktop": 1280}


@contextlib.contextmanager
def browser(width: int):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        f"--window-size={width},900",
        "--disable-gpu",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    # A headless window is never narrower than 500 pixels; a phone is.
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def page(demo):
    return demo.folder / "results/demo/report/index.html"


def load(driver, page: Path) -> None:
    """Open a page, and wait for its charts."""
    driver.get(page.absolute().as_uri())
    driver.set_script_timeout(60)
    driver.execute_async_script(
        "const done = arguments[0]; window.charts.then(c => done(c.length), e => done(String(e)))"
    )


@pytest.fixture(scope="module", params=WIDTHS.values(), ids=WIDTHS)
def opened(page, request):
    with browser(request.param) as driver:
        load(driver, page)
        yield driver, request.param


def test_nothing_fails_and_no_request_leaves_the_page(opened, page):
    driver, _ = opened
    assert driver.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.stat().st_size < 8e6


def test_every_chart_is_drawn(opened):
    driver, _ = opened
    found = driver.execute_script(
        "return [...document.querySelectorAll('.chart')].map(c => [c.id, c.querySelectorAll('svg path, svg rect').length,"
        " c.getBoundingClientRect().height])"
    )
    assert len(found) > 10
    assert [c for c in found if c[1] < 3 or c[2] < 50] == []


def test_nothing_is_wider_than_the_page(opened):
    driver, width = opened
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = driver.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg')"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '#' + e.id + '.' + e.className)"
    )
    assert wide == []


def test_no_serious_accessibility_fault(opened):
    driver, _ = opened
    driver.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text())
    found = driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in serious] == []
    assert len(found["passes"]) > 15


def column(driver, number: int) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#board-0 tbody tr')].filter(r => !r.hidden).map(r => r.cells[arguments[0]].dataset.value)",
        number,
    )


def test_the_leaderboard_sorts_and_filters(opened, demo):
    from selenium.webdriver.common.by import By

    driver, _ = opened
    board = pl.read_parquet(demo.folder / "results/demo/leaderboard.parquet")
    heads = driver.find_elements(By.CSS_SELECTOR, "#board-0 thead button")
    titles = [h.text.rstrip(" ▲▼") for h in heads]
    assert column(driver, 1) == board["candidate"].to_list()
    at = titles.index("test macro_f1")
    for descending in (True, False):
        driver.execute_script("arguments[0].click()", heads[at])
        assert (
            column(driver, 1)
            == board.sort("test_macro_f1", descending=descending, maintain_order=True)["candidate"].to_list()
        )
        assert heads[at].find_element(By.XPATH, "..").get_attribute("aria-sort") == (
            "descending" if descending else "ascending"
        )
    field = driver.find_element(By.CSS_SELECTOR, "[data-filter=board-0]")
    field.send_keys("ties")
    shown = column(driver, 1)
    assert shown and all("ties" in name for name in shown)
    count = driver.find_element(By.CSS_SELECTOR, "[data-count=board-0]")
    assert count.text == f"{len(shown)} candidates"
    driver.execute_script("arguments[0].click()", driver.find_element(By.CSS_SELECTOR, "[data-kind=merge][data-of]"))
    assert column(driver, 1) == []
    driver.execute_script("arguments[0].click()", driver.find_element(By.CSS_SELECTOR, "[data-kind=merge][data-of]"))
    field.clear()
    field.send_keys(" ")
    assert len(column(driver, 1)) == board.height


def test_the_page_says_what_the_tables_say(opened, demo):
    driver, _ = opened
    text = driver.execute_script("return document.body.textContent")
    results = demo.folder / "results/demo"
    best = pl.read_parquet(results / "leaderboard.parquet").filter(pl.col("kind") == "merge")["candidate"][0]
    assert f"{best}, a merge of" in text and "claims of this task after Holm correction" in text
    assert "test reviews" in text and "are left out of test" in text
    recipe = (results / f"merges/{best}/mergekit.yaml").read_text()
    assert recipe in text
    assert "The merge is right, every member is wrong: " in text
    for section in (
        "Quality against cost",
        "Paired differences",
        "The grids",
        "Calibration",
        "Confusion",
        "Conditions",
        "Training",
        "Provenance",
    ):
        assert section in text


def screenshots(page: Path, folder: Path) -> None:
    """The whole page at each width, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, width in WIDTHS.items():
        with browser(width) as driver:
            load(driver, page)
            height = driver.execute_script("return document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            taken = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
            (folder / f"{name}.png").write_bytes(base64.b64decode(taken["data"]))
            print(folder / f"{name}.png")


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), Path(sys.argv[2]))
