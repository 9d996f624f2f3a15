"""A headless browser for the tests of the pages."""

import subprocess
from pathlib import Path

import pytest

from .browser import Browser, find_chromium


@pytest.fixture(scope="session")
def chromium():
    """Path of Chromium, installed when that is possible."""
    if find_chromium() is None:
        script = Path(__file__).with_name("install_chromium.sh")
        done = subprocess.run([script], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no Chromium to look at the pages with: {done.stderr.strip()[-300:]}")
    return find_chromium()


@pytest.fixture(scope="module")
def browser(chromium):
    with Browser(chromium) as browser:
        yield browser
