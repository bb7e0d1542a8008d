"""Test the demonstration's report in a browser: drawn, sorted, filtered, opened, offline, on a phone, accessible."""

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
WIDTHS = {"phone": 390, "tablet": 768, "desktop": 1280}


@contextlib.contextmanager
def browser(width: int, scheme: str = "light"):
    """Open a browser of a width in pixels, in light or dark mode."""
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
    on_paper(driver, scheme)
    try:
        yield driver
    finally:
        driver.quit()


def on_paper(driver, scheme: str) -> None:
    """Light or dark."""
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)


@pytest.fixture(scope="module")
def page(demo):
    return demo.folder / "results/demo/report/index.html"


@pytest.fixture(scope="module", params=WIDTHS.values(), ids=WIDTHS)
def opened(page, request):
    with browser(request.param) as driver:
        driver.get(page.absolute().as_uri())
        yield driver, request.param


def test_nothing_fails_and_no_request_leaves_the_page(opened, page):
    driver, _ = opened
    assert driver.get_log("browser") == []
    sent = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


def test_every_chart_is_drawn(opened):
    driver, _ = opened
    found = driver.execute_script(
        "return [...document.querySelectorAll('.chart')].map(c => [c.id, c.querySelectorAll('circle, path, td').length,"
        " c.getBoundingClientRect().height])"
    )
    assert len(found) > 10
    assert [c for c in found if c[1] < 2 or c[2] < 50] == []


def test_the_answer_and_its_picture_are_on_the_first_screen(opened):
    driver, _ = opened
    end = driver.execute_script("return document.querySelector('.answer').getBoundingClientRect().bottom")
    assert 100 < end + driver.execute_script("return scrollY") <= 900
    assert "Replace the best expert" in driver.execute_script("return document.querySelector('.answer').innerText")


def test_nothing_is_wider_than_the_page(opened):
    driver, width = opened
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = driver.execute_script(
        "return [...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, pre, svg') && e.getClientRects().length"
        " && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '#' + e.id + '.' + e.className)"
    )
    assert wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_accessibility_fault(opened, scheme):
    driver, _ = opened
    on_paper(driver, scheme)
    driver.execute_script("if (!document.querySelector('.detail')) document.querySelector('#board-0 .open').click()")
    driver.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text())
    found = driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"]][:3]) for v in serious] == []
    assert len(found["passes"]) > 15
    on_paper(driver, "light")


def test_a_click_on_a_name_opens_what_is_known_of_it(opened, demo):
    driver, width = opened
    results = demo.folder / "results/demo"
    best = pl.read_parquet(results / "leaderboard.parquet").filter(kind="merge")["candidate"][0]
    button = f"document.querySelector('#board-0 [data-name=\"{best}\"] .open')"
    driver.execute_script(
        f"document.querySelectorAll('[aria-expanded=true]').forEach(b => b.click()); {button}.click()"
    )
    said = driver.execute_script("return document.querySelector('.detail').innerText")
    for title in ("Numbers", "Members", "Recipe", "Confusion on test", "Scores by slice", "Some of its errors"):
        assert title in said
    assert (results / f"merges/{best}/mergekit.yaml").read_text().strip() in said
    confusion = json.loads((results / f"scores/{best}.json").read_text())["confusion"]["test"]
    shares = [f"{100 * row[0] / sum(row):.0f}%" for row in confusion]
    cells = driver.execute_script(
        "return [...document.querySelectorAll('.detail .heat tr td:nth-child(2)')].map(c => c.firstChild.data)"
    )
    assert cells == shares
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    driver.execute_script(f"{button}.click()")
    assert driver.execute_script("return document.querySelector('.detail')") is None


def column(driver, number: int) -> list[str]:
    return driver.execute_script(
        "return [...document.querySelectorAll('#board-0 > tbody > tr[data-name]')].filter(r => !r.hidden).map(r => r.cells[arguments[0]].dataset.value)",
        number,
    )


def test_the_leaderboard_sorts_and_filters(opened, demo):
    from selenium.webdriver.common.by import By

    driver, _ = opened
    board = pl.read_parquet(demo.folder / "results/demo/leaderboard.parquet")
    heads = driver.find_elements(By.CSS_SELECTOR, "#board-0 thead button")
    titles = [h.get_attribute("textContent") for h in heads]
    assert column(driver, 0) == board["candidate"].to_list()
    at = titles.index("macro-F1 on test")
    for descending in (True, False):
        driver.execute_script("arguments[0].click()", heads[at])
        assert (
            column(driver, 0)
            == board.sort("test_macro_f1", descending=descending, maintain_order=True)["candidate"].to_list()
        )
        assert heads[at].find_element(By.XPATH, "..").get_attribute("aria-sort") == (
            "descending" if descending else "ascending"
        )
    field = driver.find_element(By.CSS_SELECTOR, "[data-filter=board-0]")
    field.send_keys("ties")
    shown = column(driver, 0)
    assert shown and all("ties" in name for name in shown)
    count = driver.find_element(By.CSS_SELECTOR, "[data-count=board-0]")
    assert count.text == f"{len(shown)} candidates"
    driver.execute_script("arguments[0].click()", driver.find_element(By.CSS_SELECTOR, "[data-kind=merge][data-of]"))
    assert column(driver, 0) == []
    driver.execute_script("arguments[0].click()", driver.find_element(By.CSS_SELECTOR, "[data-kind=merge][data-of]"))
    field.clear()
    field.send_keys(" ")
    assert len(column(driver, 0)) == board.height


def test_the_page_says_what_the_tables_say(opened, demo):
    driver, _ = opened
    text = driver.execute_script("return document.body.textContent")
    results = demo.folder / "results/demo"
    best = pl.read_parquet(results / "leaderboard.parquet").filter(pl.col("kind") == "merge")["candidate"][0]
    assert f"{best}, a merge of" in text and "claims of this task after Holm correction" in text
    assert "test reviews" in text and "The split leaves them out of test." in text
    assert "The merge is right, every member is wrong: " in text
    for section in (
        "Quality against cost",
        "Paired differences",
        "The grids",
        "Calibration",
        "Confusion",
        "Who knows which part",
        "Slices",
        "Training",
        "Provenance",
    ):
        assert section in text


def screenshots(page: Path, folder: Path) -> None:
    """Save the first screen and the complete page at each width in light and dark mode as PNG, and printed as PDF."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, width in WIDTHS.items():
        for scheme in ("light", "dark"):
            with browser(width, scheme) as driver:
                driver.get(page.absolute().as_uri())
                whole = driver.execute_script("return document.documentElement.scrollHeight")
                for part, height in (("first", 900), ("whole", whole)):
                    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
                    taken = driver.execute_cdp_cmd(
                        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
                    )
                    (folder / f"{name}-{scheme}-{part}.png").write_bytes(base64.b64decode(taken["data"]))
                if (name, scheme) == ("desktop", "dark"):
                    printed = driver.execute_cdp_cmd(
                        "Page.printToPDF", {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
                    )
                    (folder / "printed.pdf").write_bytes(base64.b64decode(printed["data"]))
    print(f"{folder}: {len(list(folder.iterdir()))} pictures")


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), Path(sys.argv[2]))
