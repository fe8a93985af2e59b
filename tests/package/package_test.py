#!/usr/bin/env python3
"""The Debian package and the manual pages, made from the build that is tested.

  package_test.py --binary FILE [unittest's arguments, e.g. Package]
"""

import gzip
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration/agent/acceptance"))

import world  # noqa: E402

TIMEOUT_S = 200


def run(*arguments, status=0, **options):
    done = subprocess.run([str(a) for a in arguments], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=world.within(TIMEOUT_S), check=False, **options)
    if done.returncode != status:
        raise AssertionError(f"{arguments} exited {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def build_folder():
    return next(folder for folder in world.BINARY.parents if (folder / "CMakeCache.txt").exists())


class Package(unittest.TestCase):
    """One package, one root folder with a dpkg database of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="kp."))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.root = self.folder / "root"
        for name in ("info", "updates", "triggers"):
            (self.root / "var/lib/dpkg" / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()

    def files(self):
        """Files and folders of the root but dpkg's own."""
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*")
                if not str(path.relative_to(self.root)).startswith(("var/lib/dpkg", "var/log"))}

    def dpkg(self, *arguments):
        (self.root / "var/log").mkdir(exist_ok=True)
        # The packages that ours depends on are in no test root.
        return run("dpkg", f"--root={self.root}", "--force-depends", "--force-not-root",
                   "--log=/dev/null", *arguments,
                   env={**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"})

    def test_made_installed_run_removed(self):
        build = build_folder()
        run("cpack", "-G", "DEB", "-B", self.folder, "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip",
            cwd=build)
        package, = self.folder.glob("*.deb")
        said = run("lintian", "--fail-on", "error,warning", "--allow-root", package)
        self.assertEqual(said.strip(), "")
        fields = run("dpkg-deb", "-f", package)
        self.assertRegex(fields, r"(?m)^Depends: .*\blibc6 \(>= 2")
        for name in ("libqrencode4", "libtss2-tcti-device0", "opensc-pkcs11"):
            self.assertRegex(fields, rf"(?m)^Recommends: .*\b{name}\b")

        before = self.files()
        self.dpkg("-i", package)
        installed = self.files()
        binary = self.root / "usr/bin/keyescrow"
        self.assertEqual(run(binary, "version"), run(world.BINARY, "version"))
        # A state in the root, used by the installed program.
        state = self.root / "var/lib/keyescrow"
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8",
                       "KEYESCROW_JOURNALD_SOCKET": "none"}
        for command in (("init",), ("audit", "checkpoint")):
            run(binary, *command, "--state", state, "--config", self.folder / "none.toml", "--tpm",
                "none", env=environment)
        for unit in ("status", "verify"):
            for kind in ("service", "timer"):
                text = (self.root / f"usr/lib/systemd/system/keyescrow-{unit}.{kind}").read_text()
                self.assertIn(f"man:keyescrow-{unit}(1)", text)
        self.check_pages_and_completions()

        self.dpkg("--purge", "keyescrow")
        left = self.files() - before
        self.assertTrue(left)
        parents = {"var", "var/lib"}
        self.assertEqual({name for name in left if not name.startswith("var/lib/keyescrow")} - parents,
                         set())
        self.assertTrue(state.is_dir() and (state / "store.db").exists())
        self.assertGreater(len(installed), 40)

    def check_pages_and_completions(self):
        share = self.root / "usr/share"
        pages = {path.name for path in (share / "man").rglob("*.gz")}
        for name in ("keyescrow.1", "keyescrow-restore.1", "keyescrow-recovery-sheet.1",
                     "keyescrow-agent.toml.5", "keyescrow-envelope.5", "keyescrow-policy.5",
                     "keyescrow.7"):
            self.assertIn(name + ".gz", pages)
        for name, shell in (("bash-completion/completions/keyescrow", "bash"),
                            ("zsh/vendor-completions/_keyescrow", "zsh"),
                            ("fish/vendor_completions.d/keyescrow.fish", "fish")):
            self.assertEqual((share / name).read_text(), run(world.BINARY, "completion", shell))
        changes = gzip.decompress((share / "doc/keyescrow/changelog.gz").read_bytes())
        self.assertEqual(changes, (ROOT / "CHANGELOG.md").read_bytes())


class ManualPages(unittest.TestCase):
    """Written and made pages: no warning of groff's or mandoc's, nothing that --help does not say."""

    def pages(self):
        made = sorted((build_folder() / "man").glob("*.1"))
        self.assertGreater(len(made), 30)
        return made + sorted((ROOT / "agent/docs/man").glob("*.[157]"))

    def test_no_warnings_and_every_reference_leads_somewhere(self):
        pages = self.pages()
        names = {(page.stem, page.suffix[1:]) for page in pages}
        run("mandoc", "-Tlint", "-Wwarning", *pages)
        for page in pages:
            text = page.read_text()
            for name, section in re.findall(r"^\.Xr (\S+) (\d)", text, re.MULTILINE):
                self.assertIn((name.replace("\\", ""), section), names, page)
        joined = subprocess.run(["groff", "-Kutf8", "-mandoc", "-Tutf8", "-wmac", "-ww", "-z",
                                 *map(str, pages)], stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, check=False)
        self.assertEqual((joined.returncode, joined.stderr), (0, ""))

    def test_every_page_says_what_help_says(self):
        for page in sorted((build_folder() / "man").glob("*.1")):
            command = re.search(r"^\.Cm (.+)$", page.read_text(), re.MULTILINE).group(1)
            help_text = run(world.BINARY, *command.replace("\\", "").split(), "--help")
            text = re.sub(r".\x08", "", run("mandoc", "-Tutf8", "-Owidth=400", page))
            for option in re.findall(r"^ +(?:-\w, )?(--[a-z-]+)", help_text, re.MULTILINE):
                self.assertIn(option, text, page)
            examples = help_text.split("Examples\n")[1].split("\n\n")[0]
            for line in examples.splitlines():
                if line.startswith("  keyescrow"):
                    self.assertIn(" ".join(line.split()), " ".join(text.split()), page)
            for status in re.findall(r"^ +(\d+)  ", help_text.split("Exit status")[1], re.MULTILINE):
                self.assertRegex(text, rf"(?m)^ +{status} ", page)


def main():
    _, others = world.parse_arguments(__doc__)
    unittest.main(module="__main__", argv=[sys.argv[0]] + others)


if __name__ == "__main__":
    main()
