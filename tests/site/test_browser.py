"""The site in a headless Chromium: every page shows its formulas and figures, and asks for nothing but itself."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.chromium import Browser

pytestmark = pytest.mark.browser


class Silent(SimpleHTTPRequestHandler):
    """Files of a folder; nothing on stderr."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.driver.quit()


def test_every_page_shows_itself_and_asks_for_nothing_else(site, address, browser):
    pages = [path.name for path in sorted(site.glob("*.html")) if path.name != "404.html"]
    pages.append("source/reference/paper/grpo.py.html")
    browser.driver.get_log("browser"), browser.driver.get_log("performance")
    for page in pages:
        browser.driver.get(address + page)
        foreign = [url for url in browser.requests() if not url.startswith((address, "data:", "chrome:"))]
        assert not foreign, (page, foreign)
        assert browser.driver.get_log("browser") == [], page
        sizes = browser.run("return [...document.querySelectorAll('math, img')].map((one) => one.clientHeight)")
        assert all(height > 5 for height in sizes), page
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), page


def test_the_formulas_letters_are_in_the_font_that_comes_with_the_site(address, browser):
    browser.driver.get(address + "equations.html")
    assert browser.run("return document.querySelectorAll('math').length") > 35
    loaded = "return document.fonts.ready.then(() => [...document.fonts].map((one) => [one.family, one.status]))"
    assert ["STIX", "loaded"] in [[family.strip('"'), status] for family, status in browser.run(loaded)]


def test_the_search_finds_a_page(address, browser):
    browser.driver.get(address + "index.html?q=advantages")
    found = """
        const done = arguments[0], limit = Date.now() + 8000;
        (function look() {
            const links = [...document.querySelectorAll('.md-search-result__link')].map((one) => one.href);
            links.length || Date.now() > limit ? done(links) : setTimeout(look, 50);
        })();
    """
    links = browser.driver.execute_async_script(found)
    assert links and all(link.startswith(address) for link in links)
    assert not any("/source/" in link for link in links)
