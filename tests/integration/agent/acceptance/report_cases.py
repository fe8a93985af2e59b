"""audit report, read by a browser: figures, contrast, a phone's width, print; nothing hostile runs."""

import csv
import html.parser
import io
import json
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys

from world import BOTH_PATHS, UNLOCK, AcceptanceCase

FOREIGN = pathlib.Path(__file__).resolve().parents[3] / "fixtures/foreign"
HOSTILE = "INC-1 <script>document.title='taken'</script> \u202egpj.exe \x07 <img src=x onerror=alert(1)>"

# Measures the report in a frame of a given width: sizes, and the contrast of every text.
PROBE = """<!DOCTYPE html><html><body><iframe id=f src="%s" width="%d" height="900"></iframe>
<pre id=result></pre><script>
function channel(v) { v /= 255; return v <= .03928 ? v / 12.92 : Math.pow((v + .055) / 1.055, 2.4); }
function parse(c) { return c.match(/[0-9.]+/g).map(Number); }
function light(c) { return .2126 * channel(c[0]) + .7152 * channel(c[1]) + .0722 * channel(c[2]); }
f.onload = function() {
  const doc = f.contentDocument, win = f.contentWindow;
  let worst = 99, where = "";
  for (const e of doc.querySelectorAll("body *")) {
    if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue;
    if (e.closest("svg") || e.closest(".skip")) continue;
    let b = e, back;
    do { back = parse(win.getComputedStyle(b).backgroundColor); b = b.parentElement; }
    while (b && back.length == 4 && back[3] == 0);
    const x = light(parse(win.getComputedStyle(e).color)), y = light(back);
    const ratio = (Math.max(x, y) + .05) / (Math.min(x, y) + .05);
    if (ratio < worst) { worst = ratio; where = e.outerHTML.slice(0, 80); }
  }
  result.textContent = JSON.stringify({width: doc.documentElement.scrollWidth, title: doc.title,
    worst: worst, where: where, scheme: win.matchMedia("(prefers-color-scheme: dark)").matches});
};
</script></body></html>"""


class Page(html.parser.HTMLParser):
    """The figures, ages, headings, ids and links of a page."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.ages, self.headings, self.ids = {}, {}, [], []
        self.links, self.tags, self.lang, self.svgs = [], set(), None, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.add(tag)
        if "data-figure" in values:
            self.figures.setdefault(values["data-figure"], set()).add(int(values["value"]))
        if "data-age" in values:
            self.ages[values["data-age"]] = int(values["value"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if tag == "html":
            self.lang = values.get("lang")
        if tag == "svg" and "role" in values:
            self.svgs.append(values["aria-labelledby"].split())


class Report(AcceptanceCase):
    paths = BOTH_PATHS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        world = cls.world
        world.must("key", "add", "prod/missing", "--source", "nowhere.key", "--path",
                   "password & token:ops")
        world.must("restore", "app/key", "--to", "out.key", "--reason", HOSTILE, *UNLOCK)
        world.run("restore", "app/key", "--to", "no.key", "--password-file", "wrong", "--pin-file",
                  "pin")
        world.write("sss.jwe", (FOREIGN / "sss.jwe").read_bytes())
        world.must("import", "sss.jwe")
        for form in ("html", "csv"):
            world.must("audit", "report", "--" + form, "-o", "report." + form)
        cls.document = world.must("audit", "report", "--json").json()
        cls.page = world.path("report.html")
        cls.text = cls.page.read_text()

    def browser(self, *arguments, url=None):
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--allow-file-access-from-files", "--enable-logging=stderr",
             "--user-data-dir=%s" % self.world.path("browser"), *arguments,
             url or self.page.as_uri()],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
            env={**self.world.environment, "TMPDIR": str(self.world.folder)})
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        messages = [line for line in done.stderr.decode(errors="replace").splitlines()
                    if "CONSOLE" in line]
        self.assertEqual(messages, [])
        return done.stdout.decode()

    def measure(self, width, *arguments):
        self.world.write("probe.html", PROBE % (self.page.as_uri(), width))
        dom = self.browser("--dump-dom", "--virtual-time-budget=5000",
                           *arguments, url=self.world.path("probe.html").as_uri())
        found = re.search(r'<pre id="result">(\{.*?\})</pre>', dom, re.DOTALL)
        self.assertTrue(found, dom[-2000:])
        return json.loads(html.unescape(found.group(1)))

    def test_figures_in_the_dom_are_those_of_the_json(self):
        page = Page(self.browser("--dump-dom"))
        figures = self.document["figures"]
        self.assertGreaterEqual(len(page.figures), len(figures) - 2)
        for name, values in page.figures.items():
            self.assertEqual(values, {figures[name]}, name)
        self.assertEqual(page.ages, {a["age"]: a["paths"] for a in self.document["proof_ages"]})
        self.assertEqual(figures["keys"], 2)
        self.assertEqual(figures["keys_not_escrowed"], 1)
        self.assertEqual(figures["releases_completed"], 1)
        self.assertEqual(figures["releases_failed"], 1)

    def test_says_what_the_policy_asks_and_what_a_key_survives(self):
        (key,) = (key for key in self.document["keys"] if key["name"] == "app/key")
        line = "app/key: " + key["survival"]
        self.assertIn(line, self.world.run("status").out.decode().splitlines())
        self.assertIn(key["survival"], html.unescape(self.text))
        self.assertIn("in the last 90 days, as the policy asks", self.text)

    def test_csv_carries_the_same_figures(self):
        rows = list(csv.DictReader(io.StringIO(self.world.path("report.csv").read_text())))
        figures = {row["name"]: int(row["value"]) for row in rows if row["record"] == "figure"}
        self.assertEqual(figures, self.document["figures"])
        for record, member in (("key", "keys"), ("finding", "findings"), ("release", "releases")):
            self.assertEqual(sum(row["record"] == record for row in rows),
                             len(self.document[member]))

    def test_nothing_hostile_gets_through(self):
        self.assertEqual(self.document["releases"][0]["reason"], HOSTILE)
        page = Page(self.browser("--dump-dom"))
        self.assertFalse(page.tags & {"script", "img", "link", "iframe", "object"}, page.tags)
        self.assertNotIn("\u202e", self.text)
        self.assertNotIn("\x07", self.text)
        self.assertIn("U+202Egpj.exe U+0007", self.text)
        self.assertEqual(self.text.count("tang:http://"), self.text.count("http://"))
        self.assertNotRegex(self.text, r"(?i)https://|url\(|@import|\sstyle=")

    def test_structure_for_a_screen_reader(self):
        page = Page(self.text)
        self.assertEqual(page.lang, "en")
        self.assertEqual(page.headings[0], 1)
        self.assertEqual(page.headings.count(1), 1)
        for before, after in zip(page.headings, page.headings[1:]):
            self.assertLessEqual(after, before + 1)
        self.assertEqual(len(page.ids), len(set(page.ids)))
        for link in page.links:
            self.assertIn(link.removeprefix("#"), page.ids)
        self.assertGreaterEqual(len(page.svgs), 3)
        for labels in page.svgs:
            self.assertLessEqual(set(labels), set(page.ids))

    def test_a_phone_a_desk_light_and_dark(self):
        for dark in (False, True):
            for width in (360, 1280):
                found = self.measure(width, "--blink-settings=preferredColorScheme=%d" % (not dark))
                self.assertEqual(found["scheme"], dark)
                self.assertLessEqual(found["width"], width)
                self.assertEqual(found["title"], "Key escrow on acceptance – keyescrow")
                self.assertGreaterEqual(found["worst"], 4.5, found)

    def test_prints(self):
        pdf = self.world.path("report.pdf")
        self.browser("--no-pdf-header-footer", "--print-to-pdf=%s" % pdf)
        data = pdf.read_bytes()
        self.assertTrue(data.startswith(b"%PDF-"))
        self.assertGreaterEqual(data.count(b"/Type /Page\n") + data.count(b"/Type /Page "), 2)

    def test_one_form_at_a_time(self):
        self.refused("usage", 2, "audit", "report", "--html", "--csv")
        self.refused("usage", 2, "audit", "report", "--html", "-o", "exec:cat", num_runs=1)
        done = self.world.run("audit", "report", "--html", "--json")
        self.assertEqual(done.status, 2, str(done))


class VerificationHistory(AcceptanceCase):
    """`verify --record` writes what reports and monitors tell of verifications."""

    world_options = {"tpm": False}

    def history(self, *state):
        document = json.loads(self.world.must(*state, "audit", "report", "--json").out)
        figures = document["figures"]
        self.assertEqual(figures["verifications_passed"] + figures["verifications_failed"],
                         len(document["verifications"]))
        return document["verifications"]

    def result(self, *state):
        found = re.search(rb"^keyescrow_verify_last_result (.*)$",
                          self.world.must(*state, "status", "--prometheus").out, re.MULTILINE)
        return found and int(found.group(1))

    def test_a_pass_is_in_the_log_report_pack_and_metrics(self):
        self.succeeds("verify")
        self.assertEqual((self.history(), self.result()), ([], None))
        done = self.succeeds("verify", "--record", "--json").json()
        (item,) = self.history()
        self.assertEqual((item["seq"], item["passed"], item["error"], item["actor"]),
                         (done["log_entry"], True, None, "root"))
        counts = done["items"][0]["counts"]
        self.assertEqual(item["what"], f"{counts['entries']} entries and 1 envelope: verified")
        self.assertEqual(self.result(), 1)
        page = self.succeeds("audit", "report", "--html").out.decode()
        self.assertIn(item["what"], page)
        self.assertNotIn("The log has no verification", page)
        self.assertIn("Complies with the policy <bdi>builtin-1</bdi>, with warnings<", page)
        self.world.write("trust.json", self.succeeds("agent-key", "export").out)
        self.succeeds("audit", "export", "-o", "pack.tar")
        signed = self.succeeds("verify", "pack.tar", "--trust", "trust.json").out
        # An auditor sees how old the pack is that passes.
        self.assertRegex(signed, rb"checked: MANIFEST\.sig of 20\d\d-\d\d-\d\dT[0-9:]{8}Z, by 2 keys")
        script = pathlib.Path(__file__).resolve().parents[4] / "agent/report/verify.py"
        stock = subprocess.run([sys.executable, script, "pack.tar", "--trust", "trust.json"],
                               cwd=self.world.folder, capture_output=True, check=False)
        self.assertEqual(stock.returncode, 0, stock.stdout + stock.stderr)
        self.assertRegex(stock.stdout, rb"checked: MANIFEST\.sig of 20\d\d-\d\d-\d\dT[0-9:]{8}Z, by 2")
        self.world.path("pack.tar").unlink()

    def test_a_failure_is_in_the_log_too(self):
        folder = self.world.path("copy")
        shutil.copytree(self.world.path("state"), folder)
        self.addCleanup(shutil.rmtree, folder)
        database = sqlite3.connect(folder / "store.db", isolation_level=None)
        database.execute("UPDATE token SET name = 'other'")
        database.close()
        done = self.world.run("--state", folder, "verify", "--record", "--json")
        self.assertEqual(done.status, 4, str(done))
        document = done.json()
        (item,) = self.history("--state", folder)
        self.assertEqual((item["seq"], item["passed"]), (document["log_entry"], False))
        self.assertEqual(item["error"], document["items"][0]["error"]["code"])
        self.assertIn(document["items"][0]["findings"][0]["fault"], item["what"])
        self.assertEqual(self.result("--state", folder), 0)

    def test_what_is_not_all_of_this_state_is_not_recorded(self):
        for arguments in (("app/key",), ("app.escrow",), (str(self.world.path("state")),),
                          ("--quick",)):
            self.refused("usage", 2, "verify", "--record", *arguments, num_runs=1)
