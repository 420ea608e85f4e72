"""Looks at the pages that tests/cli/report.sh has made: report.py FOLDER"""
import pathlib
import sys

import drive

ANSWERS = ["Confusion matrix", "Worst mistakes"]
# Folder: charts at least, and headings in their order.
PAGES = {
    "capsnet": (6, ["Training", *ANSWERS, "Reconstructions", "Layers", "Configuration"]),
    "seeds": (8, ["Training", *ANSWERS, "Reconstructions", "Layers", "Configuration"]),
    "matrix": (6, ["Training", *ANSWERS, "Layers", "Configuration"]),
    "text": (6, ["Training", "Worst mistakes", "Confusion matrix", "Layers", "Configuration"]),
    "digits": (7, ["Training", "Result", "Networks", "Configuration"]),
    "routings": (8, ["Training", "Result", "Networks", "Configuration"]),
    "overlapped": (6, ["Training", "Result", "Worst mistakes", "Reconstructions", "Layers", "Configuration"]),
    "overlapped-cnn": (7, ["Training", "Result", "Worst mistakes", "Layers", "Configuration"]),
    "penalty": (7, ["Training", "Result", "Layers", "Networks", "Configuration"]),
    "sweep": (5, ["Training", "Result", "Layers", "Configuration"]),
    "stopped": (6, ["Training", *ANSWERS, "Layers", "Configuration"]),
}
# Folders of pages that compare three networks or more: how many.
PANELS = {"routings": 3, "penalty": 4}
HEADINGS = "[...document.querySelectorAll('main > h2, main > section > h2')].map(e => e.textContent)"


def check(good, *what):
    if not good:
        sys.exit(f"FAILED: {' '.join(str(w) for w in what)}")


def look(page, path, charts, headings):
    check(page.eval(HEADINGS) == headings, path, page.eval(HEADINGS), "not", headings)
    check(page.eval("document.querySelector('h1').textContent.length") > 3, path, "no title")
    count = page.eval("document.querySelectorAll('.chart > svg').length")
    check(count >= charts, path, count, "charts, not", charts)
    empty = page.eval("[...document.querySelectorAll('.chart > svg')].filter("
                      "e => ![...e.querySelectorAll('.curve')].some(c => /\\d/.test(c.getAttribute('d')))).length")
    check(empty == 0, path, empty, "charts without a curve")
    beyond = page.eval("[...document.querySelectorAll('.chart > svg')].filter(e => [...e.querySelectorAll('.curve')].some(c => { "
                       "const b = c.getBBox(), all = e.viewBox.baseVal; "
                       "return b.x < -1 || b.y < -1 || b.x + b.width > all.width + 1 || b.y + b.height > all.height + 1; })).length")
    check(beyond == 0, path, beyond, "charts with a curve beyond their edges")
    wrong = page.eval("[...document.querySelectorAll('svg *')].filter("
                      "e => [...e.attributes].some(a => /NaN|undefined/.test(a.value))).length")
    check(wrong == 0, path, wrong, "shapes at no place")
    twice = page.eval("[...document.querySelectorAll('.chart > svg')].filter(e => { const steps = "
                      "[...e.querySelectorAll('text[text-anchor=middle]')].map(label => label.textContent); "
                      "return new Set(steps).size < steps.length || steps.length === 0; }).length")
    check(twice == 0, path, twice, "charts that name a step twice, or none")
    check(page.eval("[...document.images].every(i => i.complete && i.naturalWidth > 0)"), path, "a broken picture")
    check(page.eval("[...document.querySelectorAll('table.rows, table.matrix')].every(t => t.tHead)"), path, "no table heads")
    check(page.eval("document.documentElement.scrollWidth <= innerWidth"), path, "is wider than the window")
    check(page.eval("document.querySelectorAll('main script, main b:not(.headline b)').length") == 0, path, "text became markup")
    check(not page.requests(), path, "asks for", page.requests())
    check(not (errors := page.console_errors()), path, errors)


def look_at_panels(page, path, count):
    """One for each network, on common axes, with its own runs in front of those of the others."""
    found = page.eval("[...document.querySelectorAll('.panels .chart')].map(e => ({"
                      "name: e.querySelector('h3').textContent, figure: e.querySelector('.legend').textContent,"
                      "own: [...e.querySelectorAll('.curve[d]:not(.behind):not(.legend *)')].filter(c => c.getAttribute('d')).length,"
                      "behind: e.querySelectorAll('.curve.behind').length,"
                      "axes: [...e.querySelectorAll('svg text')].map(t => [t.textContent, t.getAttribute('x'), t.getAttribute('y')].join()).join(' '),"
                      "top: e.querySelector(':scope > svg').getBoundingClientRect().top - e.getBoundingClientRect().top}))")
    check(len(found) == count, path, len(found), "panels, not", count)
    if not found:
        return
    check(len({panel["name"] for panel in found}) == count, path, "panels of one name")
    check(len({panel["axes"] for panel in found}) == 1 and found[0]["axes"], path, "panels on several axes", found)
    check(len({round(panel["top"]) for panel in found}) == 1, path, "panels that do not line up", found)
    check(all(any(c.isdigit() for c in panel["figure"]) for panel in found), path, "a panel without a figure")
    lines = {panel["own"] + panel["behind"] for panel in found}
    check(all(panel["own"] for panel in found) and lines == {sum(panel["own"] for panel in found)}, path, "panels with", found)


def values(page, of=".chart"):
    """What the first chart shows beside the pointer."""
    return page.eval(f"document.querySelector('{of} .tip').hidden ? '' : document.querySelector('{of} .tip').textContent")


def look_at_values(page, path, of, along, name=""):
    """Beside the pointer, inside of the window, and with the arrow keys."""
    check(values(page, of) == "", path, "values without a pointer")
    page.move(*page.center(f"{of} > svg"))
    page.wait(f"!document.querySelector('{of} .tip').hidden")
    shown = values(page, of)
    check(shown.startswith(f"{along} ") and any(c.isdigit() for c in shown[len(along) + 1:]) and name in shown, path, "shows", shown)
    check(page.eval(f"(r => r.left >= 0 && r.right <= innerWidth)(document.querySelector('{of} .tip').getBoundingClientRect())"),
          path, "shows values beside the window")
    page.move(1, 1)
    page.wait(f"document.querySelector('{of} .tip').hidden")
    shown = page.eval(f"(e => {{ e.dispatchEvent(new KeyboardEvent('keydown', {{key: 'ArrowRight'}}));"
                      f" return document.querySelector('{of} .tip').textContent; }})(document.querySelector('{of} > svg'))")
    check(shown.startswith(f"{along} ") and name in shown, path, "shows", shown, "for a key")


drive.require()
folder = pathlib.Path(sys.argv[1])
with drive.Browser() as page:
    for name, (charts, headings) in PAGES.items():
        path = folder / name / "report.html"
        for width, dark in ((1280, False), (390, True)):
            page.open(path, width=width, height=844, dark=dark)
            look(page, path, charts, headings)
            look_at_panels(page, path, PANELS.get(name, 0))
        look_at_values(page, path, ".charts:not(.panels) .chart", "learning rate" if name == "sweep" else "step")
        if name in PANELS:  # the second one: at the right end of a narrow window
            second = ".panels .chart:nth-child(2)"
            look_at_values(page, path, second, "step", page.eval(f"document.querySelector('{second} h3').textContent"))
    # Background and text change places in the dark.
    colours = []
    for dark in (False, True):
        page.open(folder / "capsnet" / "report.html", dark=dark)
        colours.append(page.eval("['color', 'backgroundColor'].map(k => "
                                 "Number(getComputedStyle(document.body)[k].match(/\\d+/)[0]))"))
    check(colours[0][0] < colours[0][1] and colours[1][0] > colours[1][1], "colours", colours)
    page.open(folder / "text" / "report.html")
    check(page.eval("document.querySelector('.matrix').textContent.includes('</script><b>bad')"), "no name of a class")
    for name, words in (("stopped", "interrupted"), ("capsnet", "finished"), ("failed", "ended with an error")):
        page.open(folder / name / "report.html")
        check(words in (said := page.eval("document.querySelector('header').textContent")), name, "says", said)
print(f"{len(PAGES)} pages are as they should be")
