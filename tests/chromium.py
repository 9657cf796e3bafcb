"""A headless Chromium. Who imports this is skipped, with the reason, where selenium or the browser is missing."""

import json
import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium: pip install -e '.[browser]'")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no Chromium: apt-get install chromium chromium-driver", allow_module_level=True)
FLAGS = """
    --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync
""".split()


class Browser:
    """One Chromium with a fresh profile."""

    def __init__(self, profile):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS, f"--user-data-dir={profile}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))

    def open(self, path, width=1280, height=900, **media):
        """Load the page anew; `media`: prefers_color_scheme="dark", or print=True."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        features = [
            {"name": name.replace("_", "-"), "value": value} for name, value in media.items() if name != "print"
        ]
        emulated = {"media": "print" if "print" in media else "", "features": features}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", emulated)
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys):
        """Keys as a reader presses them, wherever the focus is."""
        for key in keys:
            webdriver.ActionChains(self.driver).send_keys(key).perform()

    def text(self, selector):
        """What an element shows."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def choose(self, problem_id):
        self.run("choose(index.findIndex((one) => one.id === arguments[0]))", problem_id)

    def rows(self):
        return self.run("return [...document.querySelectorAll('#list [role=option]')].map((row) => row.id)")

    def requests(self):
        """Every address that was asked for since `open`."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [message for message in messages if message["method"] == "Network.requestWillBeSent"]
        return [message["params"]["request"]["url"] for message in sent]
