#!/usr/bin/env python3
"""explore.html in a browser: a slider moves the picture, keys move the slider, the decoder of the page
is that of the library.   explore.py PAGE"""
import sys

import drive

PIXELS = """(() => { const c = document.getElementById('reconstruction');
  return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data); })()"""
SHOWN = "Number(document.getElementById('check').dataset.difference)"
SETTLED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"


def press(page, key):
    page._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
        {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})


def pixels_after(page, action):
    before = page.eval(PIXELS)
    action()
    page.eval(SETTLED)
    after = page.eval(PIXELS)
    return sum(a != b for a, b in zip(before, after)), after


def slide(page, entry, value):
    page.eval("""(() => { const s = document.querySelectorAll('.slider input')[%d]; s.value = %g;
      s.dispatchEvent(new Event('input')); return true; })()""" % (entry, value))


def check(page, path, width, dark):
    page.open(path, width=width, height=844, dark=dark)
    assert page.eval("document.querySelectorAll('canvas').length") > 10
    assert page.eval(SHOWN) < 1e-3, page.eval(SHOWN)
    assert page.eval("document.documentElement.scrollWidth") <= width, "wider than the window"
    first = page.eval(PIXELS)
    assert max(first[0::4]) > 60, "nothing is drawn"

    changed, _ = pixels_after(page, lambda: slide(page, 0, 0.25))
    assert changed > 20, f"the slider changed {changed} numbers"
    _, reset = pixels_after(page, lambda: page.click(*page.center("#reset")))
    assert reset == first, "reset does not bring the picture back"

    # By keys alone: the slider that has the focus, then the class that the decoder sees.
    page.eval("document.querySelector('.slider input').focus()")
    changed, _ = pixels_after(page, lambda: [press(page, "\ue014") for _ in range(20)])
    assert changed > 20, "arrow keys do not move the slider"
    page.eval("document.querySelector('.classes input:checked').focus()")
    changed, _ = pixels_after(page, lambda: press(page, "\ue015"))
    assert changed > 20, "arrow keys do not change the class"

    changed, _ = pixels_after(page, lambda: page.click(*page.center(".images label:last-child")))
    assert changed > 20, "the last image changes nothing"
    assert page.console_errors() == [], page.console_errors()
    assert page.requests() == []


def main():
    drive.require()
    with drive.Browser() as page:
        check(page, sys.argv[1], 1280, False)
        check(page, sys.argv[1], 390, True)


main()
