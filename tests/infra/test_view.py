"""Pages of flags: their text, pictures and controls in a browser, and their content without one.

Without chromium and its driver, only the content is tested.
"""

import json
import re
import shutil
import zlib
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from resource import RLIMIT_FSIZE, getrlimit, setrlimit
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from core.flags import DO_NOT_USE, PIXEL_FLAGS
from core.mask import Mask
from handler.s3.objects import S3Location
from infra.__main__ import main
from infra.demo.local_aws import MIRROR, PRODUCTS, RAW
from infra.local.inputs import s3_client
from infra.mirror.bucket import Mirror
from infra.mirror.contexts import Context, Rule
from infra.view.flags import Page
from infra.view.history import MaskPeriod, history_table, mask_periods
from infra.view.pages import page_name, render_page, write_pages
from infra.view.pictures import Picture, plane
from tests.conftest import PROJECT, SHARED, Harness
from tests.infra.program import run_program
from tests.samples.exposures import write_exposure
from tests.samples.masks import MASKS, write_mask
from tests.samples.modes import MODES

MODE = {mode.name: mode for mode in MODES}
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
DRAWN = ["nircam-full", "nircam-sub64p", "nircam-superstripe", "fgs1-acq1", "miri-brightsky"]


@pytest.fixture(autouse=True)
def own_client() -> None:
    """Forget the client of S3, which has the endpoint of an earlier test."""
    s3_client.cache_clear()


@pytest.fixture(scope="module")
def chrome() -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium with its driver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-proxy-server"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class BrowserPage:
    """A page that is open in the browser."""

    def __init__(self, chrome: webdriver.Chrome, path: Path, width: int = 1200) -> None:
        self.chrome = chrome
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        for kind in ("browser", "performance"):
            chrome.get_log(kind)
        chrome.get(path.as_uri())
        self.wait(lambda: self.run("return document.documentElement.dataset.ready") == "true")

    def run(self, script: str, *arguments: Any) -> Any:
        return self.chrome.execute_script(script, *arguments)

    def wait(self, condition: Any) -> None:
        WebDriverWait(self.chrome, 20, 0.05).until(lambda _: condition())

    def table(self) -> dict[str, list[int]]:
        rows = self.run(
            "return [...document.querySelectorAll('#flags tr')]"
            ".map((row) => [...row.cells].map((cell) => cell.textContent))"
        )
        return {name: [int(n.replace(",", "")) for n in numbers] for name, *numbers in rows}

    def under(self) -> str:
        return self.run("return document.getElementById('under').textContent")

    def dots(self) -> str:
        """Return the picture as a data URL."""
        return self.run("return document.getElementById('picture').toDataURL()")

    def walk(self, *keys: str) -> None:
        canvas = self.chrome.find_element("id", "picture")
        self.run("arguments[0].focus()", canvas)
        ActionChains(self.chrome).send_keys(*keys).perform()

    def requests(self) -> list[str]:
        """Return the URLs that the page requested."""
        events = [
            json.loads(entry["message"])["message"] for entry in self.chrome.get_log("performance")
        ]
        asked = [
            e["params"]["request"]["url"]
            for e in events
            if e["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]


def view(*words: str) -> Path:
    main(["view", *words])
    return Path(words[words.index("--out") + 1])


@pytest.fixture
def product(function: Harness, tmp_path: Path) -> Any:
    """A function that builds the product of a mode; returns its URI, a folder and its flags."""

    def make(name: str) -> tuple[str, Path, Any]:
        mode = MODE[name]
        write_exposure(mode, tmp_path / "x.fits")
        function.upload(tmp_path / "x.fits", f"{name}_uncal.fits")
        detail = function.run(f"{name}_uncal.fits")
        local = tmp_path / f"{name}_dq_init.fits"
        local.write_bytes(function.product(detail))
        dq = fits.getdata(local, "DQ" if name.startswith("fgs") else "PIXELDQ")
        return f"s3://{PRODUCTS}/{detail['output']['key']}", tmp_path / "pages", dq

    return make


def expected(dq: Any) -> dict[str, list[int]]:
    """Return pixels by flag, and how many of them are DO_NOT_USE, too."""
    unusable = (dq & DO_NOT_USE) != 0
    found = {
        n: [int(((dq & b) != 0).sum()), int((((dq & b) != 0) & unusable).sum())]
        for n, b in PIXEL_FLAGS.items()
    }
    return {name: counts for name, counts in found.items() if counts[0]}


@pytest.mark.slow
@pytest.mark.parametrize("name", DRAWN)
def test_page_shows_the_counts_and_pixels_of_the_file(
    name: str, product: Any, chrome: webdriver.Chrome
) -> None:
    uri, folder, dq = product(name)
    main(["view", uri, "--out", str(folder), "--mirror", f"s3://{MIRROR}"])
    (path,) = folder.iterdir()
    page = BrowserPage(chrome, path)
    first = dq if dq.ndim == 2 else dq[0]
    assert page.table() == expected(first)
    ny, nx = first.shape
    in_mask = "in the mask" in path.read_text() and name in {
        "nircam-sub64p",
        "fgs1-acq1",
        "miri-brightsky",
    }
    for x, y in ((0, 0), (nx - 1, 0), (0, ny - 1), (nx - 1, ny - 1), (nx // 2, ny // 3)):
        text = at(page, x, y, in_mask)
        assert text.startswith(f"x {x + 1}, y {y + 1}"), text
        value = int(first[y, x])
        names = [flag for flag, bit in PIXEL_FLAGS.items() if value & bit]
        assert text.endswith(f": {value}, {', '.join(names) or 'no flag'}"), text
    assert chrome.get_log("browser") == []
    assert page.requests() == []


def at(page: BrowserPage, x: int, y: int, in_mask: bool) -> str:
    """Return the page's text about a pixel of the window, after a click on it."""
    data = "JSON.parse(document.getElementById('data').textContent)"
    assert page.run(f"return {data}.window !== null") == in_mask
    where = page.run(
        "const c = document.getElementById('picture'), b = c.getBoundingClientRect();"
        "const d = JSON.parse(document.getElementById('data').textContent);"
        "const w = d.window || {x: 0, y: 0, nx: d.nx, ny: d.ny};"
        "const s = Math.min(c.width / w.nx, c.height / w.ny, 64) * 0.98;"
        "const x = (arguments[0] + 0.5 - w.nx / 2) * s, y = (arguments[1] + 0.5 - w.ny / 2) * s;"
        "return [0.99 * x, -0.99 * y]",
        x, y,
    )  # fmt: skip
    canvas = page.chrome.find_element("id", "picture")
    ActionChains(page.chrome).move_to_element_with_offset(canvas, *map(round, where)).perform()
    text = page.under()
    match = re.match(r"x (\d+), y (\d+)", text)
    assert match, text
    # A dot of a large picture covers several pixels: move to the pixel by keys.
    dx, dy = x + 1 - int(match[1]), y + 1 - int(match[2])
    steps = [Keys.ARROW_RIGHT if dx > 0 else Keys.ARROW_LEFT] * abs(dx)
    steps += [Keys.ARROW_UP if dy > 0 else Keys.ARROW_DOWN] * abs(dy)
    if steps:
        page.walk(*steps)
    return page.under()


def test_flag_switched_by_keyboard_changes_the_picture(
    product: Any, chrome: webdriver.Chrome
) -> None:
    uri, folder, _ = product("nircam-sub64p")
    view(uri, "--out", str(folder))
    page = BrowserPage(chrome, next(folder.iterdir()))
    before = page.dots()
    box = chrome.find_element("css selector", "input[data-flag='DEAD']")
    box.send_keys(Keys.SPACE)
    without = page.dots()
    assert without != before
    assert page.run("return document.getElementById('all').indeterminate")
    box.send_keys(Keys.SPACE)
    assert page.dots() == before
    chrome.find_element("id", "all").send_keys(Keys.SPACE)
    assert page.dots() not in {before, without}
    page.walk("+", "+")
    zoomed = page.dots()
    page.walk("0")
    assert page.dots() != zoomed


def test_keys_show_the_next_and_previous_stripe(product: Any, chrome: webdriver.Chrome) -> None:
    uri, folder, dq = product("nircam-superstripe")
    view(uri, "--out", str(folder))
    page = BrowserPage(chrome, next(folder.iterdir()))
    label = "return document.getElementById('label').textContent"
    assert page.run(label) == "stripe 1 of 64"
    page.walk("n", "n", "n", "p")
    page.wait(lambda: page.run(label) == "stripe 3 of 64")
    assert page.table() == expected(dq[2])
    y, x = next((y, x) for y, x in np.ndindex(dq.shape[1:]) if len(set(dq[:3, y, x])) > 1)
    for number in (3, 2, 1):
        at(page, x, y, in_mask=False) if number == 3 else page.walk("p")
        page.wait(lambda k=number: page.run(label) == f"stripe {k} of 64")
        assert page.under().startswith(f"x {x + 1}, y {y + 1}: {dq[number - 1, y, x]}, ")


@pytest.mark.parametrize("width", [360, 700, 1400])
def test_page_fits_into_a_narrow_screen(width: int, product: Any, chrome: webdriver.Chrome) -> None:
    uri, folder, _ = product("nircam-sub64p")
    view(uri, "--out", str(folder))
    page = BrowserPage(chrome, next(folder.iterdir()), width)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_comparison_counts_gained_and_lost_flags(tmp_path: Path, chrome: webdriver.Chrome) -> None:
    sample = next(mask for mask in MASKS if mask.name == "jwst_nircam_mask_9002.fits")
    old, new = tmp_path / "old.fits", tmp_path / "new.fits"
    write_mask(sample, old)
    shutil.copy(old, new)
    with fits.open(new, mode="update") as hdus:
        hdus["DQ"].data[100, 100:110] = 1
        hdus["DQ"].data[500:600, 500:600] = 0
    before, after = (fits.getdata(path, "DQ") for path in (old, new))
    view(str(new), "--against", str(old), "--out", str(tmp_path / "pages"))
    path = next((tmp_path / "pages").iterdir())
    narrow = BrowserPage(chrome, path, 360)
    assert narrow.run("return document.documentElement.scrollWidth <= window.innerWidth")
    page = BrowserPage(chrome, path, 1280)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    for flag, bit in (("DO_NOT_USE", 1), ("DEAD", 2)):
        a, b = (before & bit) != 0, (after & bit) != 0
        assert page.table()[flag] == [int(n.sum()) for n in (a, b, b & ~a, a & ~b)]
    assert page.requests() == []


@pytest.mark.slow
def test_history_has_a_row_and_a_plane_for_each_mask(
    function: Harness, tmp_path: Path, chrome: webdriver.Chrome
) -> None:
    view(f"s3://{MIRROR}", "--detector", "NRCB1", "--out", str(tmp_path / "pages"))
    page = BrowserPage(chrome, tmp_path / "pages" / "NRCB1.html")
    rows = page.run(
        "return [...document.querySelectorAll('tr[data-plane]')].map((r) => r.textContent)"
    )
    names = {
        rule.mask
        for rule in Mirror(function.aws.client("s3"), S3Location(MIRROR, ""))
        .context("jwst_9001.pmap")
        .rules
        if rule.value("DETECTOR") == "NRCB1"
    }
    assert len(rows) == len(names)
    chrome.find_element("css selector", "tr[data-plane='0']").send_keys(Keys.ENTER)
    page.wait(lambda: page.run("return document.getElementById('plane').value") == "0")
    assert page.requests() == []


def test_history_has_masks_of_rules_for_several_detectors(sample_cache: Path) -> None:
    name, parameter = "jwst_nircam_mask_9002.fits", "META.INSTRUMENT.DETECTOR"
    content = (sample_cache / "references" / "jwst" / "nircam" / name).read_bytes()
    rules = (
        Rule("nircam", ((parameter, "NRCA1|NRCB1"),), "2022-01-01 00:00:00", name),
        Rule("nircam", ((parameter, "NRCB1"),), "2021-01-01 00:00:00", "OMIT"),
    )
    mirror: Any = SimpleNamespace(
        contexts=lambda: ["jwst_9001.pmap"],
        context=lambda name: Context(name, (), rules),
        get=lambda _: content,
    )
    assert [period.mask.name for period in mask_periods(mirror, "NRCB1")] == [name]


@pytest.mark.slow
def test_history_counts_gained_lost_and_unusable_pixels() -> None:
    old = np.array([[1, 0, 0, 0], [0, 4, 0, 0]], np.uint32)
    new = np.array([[1, 0, 0, 3], [0, 0, 2, 0]], np.uint32)
    periods = [
        MaskPeriod(Mask(name, dq, "NIRCAM", None, (None, None)), f"{year}-01-01", subarray, *used)
        for name, dq, year, subarray, used in (
            ("old.fits", old, 2021, "FULL", ("jwst_0001.pmap", "jwst_0002.pmap")),
            ("new.fits", new, 2022, "", ("jwst_0003.pmap", "jwst_0003.pmap")),
        )
    ]
    table = history_table(periods)
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    first = {"Mask": "old.fits", "From": "2021-01-01", "Subarray": "FULL"}
    first |= {"Contexts": "0001 to 0002", "Any flag": "2", "Gained": "", "Lost": "", "%": "12.50"}
    second = {"Mask": "new.fits", "From": "2022-01-01", "Subarray": ""}
    second |= {"Contexts": "0003 to 0003", "Any flag": "3", "Gained": "2", "Lost": "1"}
    assert rows == [
        first | {"DO_NOT_USE": "1", "SATURATED": "0", "JUMP_DET": "1"},
        second | {"%": "25.00", "DO_NOT_USE": "2", "SATURATED": "2", "JUMP_DET": "0"},
    ]


@pytest.mark.slow
def test_page_of_a_real_mask_is_small(
    real_cache: Path, tmp_path: Path, chrome: webdriver.Chrome
) -> None:
    mask = real_cache / "references" / "jwst" / "nircam" / "jwst_nircam_mask_0033.fits"
    view(str(mask), "--out", str(tmp_path / "pages"))
    path = tmp_path / "pages" / "jwst_nircam_mask_0033.html"
    assert path.stat().st_size <= 250_000
    page = BrowserPage(chrome, path)
    assert page.table()["DO_NOT_USE"][0] > 1000
    assert SHARED.is_dir()


def test_page_contains_the_flags_without_loss(product: Any) -> None:
    uri, folder, dq = product("miri-brightsky")
    view(uri, "--out", str(folder))
    text = next(folder.iterdir()).read_text()
    found = re.search(r'id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    (one,) = json.loads(found[1])["planes"]
    index = np.frombuffer(zlib.decompress(b64decode(one["data"])), "u1").reshape(dq.shape)
    np.testing.assert_array_equal(np.array(one["values"], np.uint32)[index], dq)
    assert "http" not in re.sub(r'id="data">.*?</script>', "", text, flags=re.DOTALL)


@pytest.mark.slow
def test_raw_exposure_is_shown_with_its_future_flags(function: Harness, tmp_path: Path) -> None:
    write_exposure(MODE["nircam-sub64p"], tmp_path / "x_uncal.fits")
    function.upload(tmp_path / "x_uncal.fits", "x_uncal.fits")
    words = ["view", f"s3://{RAW}/x_uncal.fits", "--out", str(tmp_path / "pages")]
    main([*words, "--mirror", f"s3://{MIRROR}"])
    text = (tmp_path / "pages" / "x_uncal.html").read_text()
    assert "as it would be applied" in text
    assert "NIRCAM NRCB1" in text
    assert "3 integrations, 5 groups, 64 x 64 pixels" in text
    assert "SUB64P: columns 1851 to 1914, rows 1817 to 1880" in text
    with pytest.raises(SystemExit, match="--mirror"):
        main(words)


@pytest.mark.parametrize("target", ["nowhere.fits", "s3://nowhere/x.fits"])
def test_missing_target_is_one_line(target: str, function: Harness, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["view", target, "--out", str(tmp_path)])
    assert len(str(ended.value).splitlines()) == 1
    assert target in str(ended.value)


@pytest.mark.parametrize("words", [[], ["--against", "bad_mask.fits"]])
def test_bad_mask_is_named_by_its_path(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    primary = fits.PrimaryHDU()
    primary.header["REFTYPE"] = "MASK"
    primary.writeto("bad_mask.fits")
    done = run_program("view", "bad_mask.fits", "--out", "pages", *words)
    assert done.exit_code == 2
    assert done.err.startswith("view: bad_mask.fits: no DQ array among its HDUs")


def test_local_file_needs_no_settings_of_aws(tmp_path: Path) -> None:
    sample = next(mask for mask in MASKS if mask.name == "jwst_nircam_mask_9002.fits")
    write_mask(sample, tmp_path / "m.fits")
    words = (str(tmp_path / "m.fits"), "--out", str(tmp_path / "pages"))
    done = run_program("view", *words, AWS_DEFAULT_REGION="", AWS_PROFILE="missing")
    assert (done.exit_code, done.err) == (0, "")


def test_detector_with_several_targets_is_a_usage_error(tmp_path: Path) -> None:
    words = ("s3://m", "x.fits", "--detector", "NRCA1", "--out", str(tmp_path))
    done = run_program("view", *words)
    assert done.exit_code == 2
    assert "--detector expects one TARGET" in done.err


def test_full_disk_leaves_the_earlier_page(tmp_path: Path) -> None:
    page = Page("a", (), Picture((plane(np.zeros((2, 2), np.uint32)),), (2, 2)))
    before = write_pages([page], tmp_path).read_bytes()
    soft, hard = getrlimit(RLIMIT_FSIZE)
    setrlimit(RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*/a\.html'"):
            write_pages([page], tmp_path)
    finally:
        setrlimit(RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]
    assert (tmp_path / "a.html").read_bytes() == before


def test_picture_of_the_readme_exists() -> None:
    assert (PROJECT / "docs" / "look.png").stat().st_size < 200_000


def test_page_names_are_plain_and_differ() -> None:
    titles = [
        "a",
        "a b",
        "a_b",
        "a/b",
        "../a",
        "javascript:x",
        "a#b?c%41",
        "\ud800",
        "",
        "x" * 300,
        ".",
    ]
    names = [page_name(title) for title in titles]
    assert len(set(names)) == len(titles)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.html", name) for name in names)
    assert max(map(len, names)) < 150


def test_pages_never_share_a_file(tmp_path: Path) -> None:
    picture = Picture((plane(np.zeros((2, 2), np.uint32)),), (2, 2))
    titles = ["a", "A", "a--2", "a", "index"]
    index = write_pages([Page(title, (), picture) for title in titles], tmp_path)
    assert index.name == "index.html"
    links = re.findall(r'href="\./([^"]+)"', index.read_text())
    assert len({link.lower() for link in links}) == len(titles) == len(list(tmp_path.iterdir())) - 1
    for link, title in zip(links, titles, strict=True):
        assert f"<h1>{title}</h1>" in (tmp_path / link).read_text()


def test_hostile_names_and_headers_stay_text(product: Any, tmp_path: Path) -> None:
    product("nircam-sub64p")
    local = tmp_path / "javascript:alert(1)#?_dq_init.fits"
    shutil.copy(tmp_path / "nircam-sub64p_dq_init.fits", local)
    other = tmp_path / "other_dq_init.fits"
    shutil.copy(local, other)
    with fits.open(other, mode="update") as hdus:
        hdus[0].header["DETECTOR"] = "<img src=x onerror=alert(1)>"
        hdus[0].header["SUBARRAY"] = "</script><script>alert(2)</script>"
    folder = view(str(local), str(other), "--out", str(tmp_path / "hostile"))
    index = (folder / "index.html").read_text()
    links = re.findall(r'href="([^"]*)"', index)
    assert len(links) == 3
    for link in links[1:]:
        assert link.startswith("./")
        assert (folder / link).is_file()
    for page in folder.iterdir():
        text = page.read_text()
        assert "<img" not in text
        assert "<script>alert" not in text


def test_label_cannot_end_the_data_of_a_page() -> None:
    picture = Picture((plane(np.zeros((2, 2), np.uint32), "<!--<script></script>"),), (2, 2))
    page = render_page(Page("x", (), picture))
    assert "<!--" not in page
    assert page.count("</script>") == 2


def test_stripes_name_no_rows_of_the_detector(product: Any) -> None:
    uri, folder, _ = product("nircam-superstripe")
    view(uri, "--out", str(folder))
    text = next(folder.iterdir()).read_text()
    assert "stripes; rows and columns are those of the image" in text
    assert "rows 2046" not in text


def test_mirror_without_detector_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"expected s3://bucket/key of a FITS file; .*--detector"):
        main(["view", "s3://my-crds-mirror", "--out", str(tmp_path)])


@pytest.mark.parametrize("values", [255, 256, 65_535, 65_536, 262_144])
def test_picture_of_many_values_is_lossless(values: int) -> None:
    dq = (np.arange(512 * 512, dtype=np.uint32) % (values + 1)).reshape(512, 512)
    one = plane(dq)
    index = np.frombuffer(zlib.decompress(b64decode(one["data"])), f"<u{one['wide'] or 1}")
    np.testing.assert_array_equal(np.array(one["values"], np.uint32)[index].reshape(dq.shape), dq)
