"""The page for the safe: printed by a browser, read from the paper by another's decoder, restored from."""

import base64
import hashlib
import html.parser
import json
import re
import shutil
import subprocess

from world import BOTH_PATHS, PASSWORD, PIN, UNLOCK, AcceptanceCase

PAPERS = {"A4": (595, 842), "Letter": (612, 792)}  # in points


def tool(*arguments):
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, check=False)
    # zbarimg exits with 4 where one of several pictures has no code, such as a page of text.
    if done.returncode not in ((0, 4) if arguments[0] == "zbarimg" else (0,)):
        raise AssertionError(f"{arguments}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)


class Sheet(AcceptanceCase):  # one test: its methods read the sheets of one world
    paths = BOTH_PATHS

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = cls.world.must("recovery-sheet", "app/key", "-o", "sheet.html", "--json").json()
        cls.text = cls.world.path("sheet.html").read_text()

    # --- paper

    def print_on(self, paper, name="sheet"):
        """The PDF that a browser makes for this paper, and its number of pages."""
        page = self.world.path(name + ".html").read_text()
        self.assertIn("@page { size: auto; ", page)
        # The paper is the printer's choice; without one, the page's style must name it.
        style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
        sized = style.replace("size: auto", "size: " + paper)
        digest = lambda css: base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
        self.assertIn(f"style-src 'sha256-{digest(style)}'", page)
        self.world.write("sized.html", page.replace(style, sized).replace(digest(style), digest(sized)))
        pdf = self.world.path(f"{name}.{paper}.pdf")
        done = subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer",
             "--user-data-dir=%s" % self.world.path("browser"), "--print-to-pdf=%s" % pdf,
             self.world.path("sized.html").as_uri()],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
            env={**self.world.environment, "TMPDIR": str(self.world.folder)})
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        facts = tool("pdfinfo", pdf)
        width, height = map(float, re.search(r"Page size: +([\d.]+) x ([\d.]+)", facts).groups())
        self.assertAlmostEqual(width, PAPERS[paper][0], delta=1)
        self.assertAlmostEqual(height, PAPERS[paper][1], delta=1)
        return pdf, int(re.search(r"Pages: +(\d+)", facts).group(1))

    def scan(self, pdf, num_codes, resolution, *how):
        """The lines that zbarimg reads from pictures of the pages, by the command on the sheet."""
        words = " ".join(Tags(self.text).words)
        command = re.search(r"(zbarimg .+?) page\*\.png ", words).group(1).split()
        lines = set()
        # It misses a code in a picture now and then, and sees that one in another.
        for dots in (resolution, 200):
            if len(lines) < num_codes:
                tool("pdftoppm", *how, "-r", dots, pdf, self.world.path("scan"))
                pictures = sorted(path for path in self.world.folder.glob("scan-*")
                                  if path.suffix != ".txt")
                lines.update(tool(*command, *pictures).splitlines())
                for picture in pictures:
                    picture.unlink()
        return sorted(lines)

    def stateless(self):
        return {"env": {"KEYESCROW_STATE": str(self.world.path("nowhere")),
                        "KEYESCROW_CONFIG": str(self.world.path("none.toml"))}}

    def restores(self, file):
        """On a machine without a state, by token and password."""
        self.succeeds("restore", file, "--agent", self.world.thumbprint, "--via", "token-ops",
                      "--module", self.world.module, "--to", "back.key", "--event-log", "event.json",
                      *UNLOCK, **self.stateless())
        back = self.world.path("back.key")
        self.assertEqual(back.read_bytes(), self.world.key)
        back.unlink()
        self.world.path("event.json").unlink()

    def test_one_page_of_each_paper_restores(self):
        self.assertEqual((self.made["codes"], self.made["pages"]), (6, 1))
        # A4 as a copier sees it, in black and white alone; Letter as a small grey picture.
        for paper, *how in (("A4", 300, "-mono"), ("Letter", 150, "-gray", "-png")):
            pdf, num_pages = self.print_on(paper)
            self.assertEqual(num_pages, 1, paper)
            lines = self.scan(pdf, 6, *how)
            self.assertEqual(len(lines), 6, lines)
            self.world.write("scanned.txt", "".join(line + "\n" for line in lines))
            self.restores("./scanned.txt")

    def test_what_is_missing_is_named(self):
        lines = self.lines_of_text()
        self.world.write("some.txt", "\n".join(lines[:4] + lines[5:]))
        for command in ("show", "restore", "drill", "import"):
            error = self.refused("envelope_unreadable", 8, command, "./some.txt", num_runs=1)
            self.assertTrue(error["message"].endswith("is missing: 5"), error)
        changed = lines[0][:-1] + ("A" if lines[0][-1] != "A" else "B")
        self.world.write("some.txt", "\n".join([changed] + lines[1:]))
        error = self.refused("envelope_format", 4, "show", "./some.txt")
        self.assertIn("line 1 ", error["message"])

    def lines_of_text(self):
        text = self.succeeds("recovery-sheet", "app/key", "--text", "-o", "-").out.decode()
        return [line for line in text.splitlines() if line.startswith("KE1/")]

    def test_text_is_a_file_to_restore_from(self):
        made = self.succeeds("recovery-sheet", "app/key", "-o", "sheet.txt", "--json").json()
        text = self.world.path("sheet.txt").read_text()
        self.assertTrue(text.isascii())
        self.assertLessEqual(max(map(len, text.splitlines())), 78)
        self.assertEqual((made["form"], made["codes"]), ("text", text.count("\nKE1/")))
        self.assertEqual(made["pages"], -(-text.count("\n") // 60))
        self.restores("sheet.txt")
        shown = self.world.must("show", "sheet.txt", "--json").json()
        self.assertEqual(shown["envelope_sha256"], self.made["envelope_sha256"])
        self.succeeds("verify", "sheet.txt", "--agent", self.world.thumbprint, **self.stateless())
        already = self.succeeds("import", "sheet.txt", "--json").json()
        self.assertTrue(already["already_there"])

    def printed_command(self, text):
        """The words of the command that restores, as a shell takes it from the sheet."""
        begin = text.index("       keyescrow restore ")
        command = text[begin:text.index("\n  5. ", begin)]
        done = subprocess.run(["bash", "-c", 'keyescrow() { printf "%s\\0" "$@"; }\n' + command],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
        self.assertEqual(done.stderr, b"", command)
        return done.stdout.decode().split("\0")[:-1]

    def test_the_printed_command_restores(self):
        """It names the module of its own path's token, on a host with modules of several makers."""
        world = self.world
        other = world.path("another maker.so")
        shutil.copy(world.module, other)
        world.make_token("zwei")
        pins = ("--password-file", "pw", "--pin-file", "ops=pin", "--pin-file", "zwei=pin")
        world.must("token", "add", "zwei", "pkcs11:token=zwei", "--module", other, *pins[2:])
        for name, paths, module in (
                ("first", ("password & token:zwei & tpm", "password & token:ops"), world.module),
                ("second", ("password & token:zwei",), str(other)),
                ("officers", ("2 of (token:zwei, token:ops)",), "MODULE"),
                ("mixed", ("token:zwei & token:ops",), "MODULE")):
            world.must("backup", name, "--from", "app.key", *pins,
                       *[word for path in paths for word in ("--path", path)])
            text = world.must("recovery-sheet", name, "--text", "-o", "-").out.decode()
            self.assertLessEqual(max(map(len, text.splitlines())), 78)
            words = self.printed_command(text)
            self.assertEqual(words[words.index("--module") + 1], module, words)
            if module == "MODULE":
                continue
            world.write("sheet.txt", text)
            world.must(*words, "--event-log", "event.json", *pins, **self.stateless())
            self.assertEqual(world.path("the.key").read_bytes(), world.key)
            world.path("the.key").unlink()
            world.path("event.json").unlink()

    def test_says_what_it_is_and_no_secret(self):
        words = " ".join(" ".join(Tags(self.text).words).split())
        shown = self.world.must("show", "app/key", "--json").json()
        for fact in ("app/key", "version 1", shown["envelope_id"], shown["envelope_sha256"],
                     self.world.thumbprint, "acceptance", "token-ops", "password", "label ops",
                     "RECOVER-WITHOUT-KEYESCROW.md", self.world.module):
            self.assertIn(fact, words)
        self.assertFalse(Tags(self.text).tags & {"script", "img", "link", "iframe", "object"})
        self.assertNotRegex(self.text, r"(?i)https?://|url\(|@import|\sstyle=")
        key = self.world.key
        for secret in (PASSWORD, PIN, key.hex(), base64.b64encode(key).decode()[:40],
                       base64.urlsafe_b64encode(key).decode()[:40]):
            self.assertNotIn(secret, self.text)

    def test_a_copy_that_the_log_has(self):
        log = [json.loads(line) for line in
               self.succeeds("audit", "log", "--json-lines").out.decode().splitlines()]
        events = [entry for entry in log if "recovery sheet" in json.dumps(entry)]
        self.assertGreaterEqual(len(events), 1)
        self.assertIn("audit.exported", json.dumps(events[0]))

    def test_what_does_not_fit_goes_to_more_pages(self):
        world = self.world
        name = "/".join(["n" * 40] * 3) + "/end"
        world.write("large.key", bytes(range(256)) * 16)
        world.must("backup", name, "--from", "large.key", "--path", "password & token:ops", *UNLOCK,
                   "--note", "W" * 1024)
        made = world.must("recovery-sheet", name, "-o", "large.html", "--json").json()
        self.assertGreater(made["codes"], 6)
        self.assertEqual(made["pages"], 1 + -(-made["codes"] // 12))
        for paper in PAPERS:
            pdf, num_pages = self.print_on(paper, "large")
            self.assertEqual(num_pages, made["pages"], paper)
        lines = self.scan(pdf, made["codes"], 150, "-gray", "-png")
        world.write("large.txt", "".join(line + "\n" for line in lines))
        shown = self.succeeds("show", "large.txt", "--json").json()
        self.assertEqual(shown["envelope_sha256"], made["envelope_sha256"])
        world.write("huge.key", bytes(1 << 16))
        world.must("backup", "huge", "--from", "huge.key", "--path", "password & token:ops", *UNLOCK)
        self.refused("usage", 2, "recovery-sheet", "huge", "-o", "huge.html", num_runs=1)

    def test_refusals(self):
        self.refused("key_not_found", 8, "recovery-sheet", "no/key", "-o", "x.html")
        self.refused("invalid_name", 2, "recovery-sheet", "no key", "-o", "x.html")
        self.refused("usage", 2, "recovery-sheet", "app/key")
        self.refused("usage", 2, "recovery-sheet", "app/key", "-o", "exec:cat", num_runs=1)
        self.refused("destination_is_folder", 11, "recovery-sheet", "app/key", "-o", "tokens",
                     num_runs=1)
