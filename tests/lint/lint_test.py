"""Shows each rule of lint.py a line that breaks it and one that does not."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
sys.dont_write_bytecode = True

import lint  # noqa: E402


def findings(check: str, name: str, text: str) -> list[str]:
    subject = lint.Lint([])
    subject.files = [name]
    subject.texts = {name: text}
    subject.code = {name: text}
    getattr(subject, check)()
    return subject.findings


class LintTest(unittest.TestCase):
    def breaks(self, check: str, name: str, text: str) -> None:
        self.assertTrue(findings(check, name, text), f"{check} let this pass: {text}")

    def keeps(self, check: str, name: str, text: str) -> None:
        self.assertEqual(findings(check, name, text), [])

    def test_rooms(self) -> None:
        for name, header in (
            ("envelope/base/x.cc", "envelope/factor.h"),
            ("hsm/x.cc", "tpm/tss.h"),
            ("hsm/x.cc", "agent/cli/options.h"),
            ("agent/store/x.cc", "agent/audit/note.h"),
            ("agent/audit/x.cc", "agent/store/escrow_store.h"),
            ("agent/usecases/x.cc", "agent/cli/options.h"),
            ("agent/cli/x.cc", "hsm/cryptoki.h"),
            ("agent/x.cc", "agent/cli/options.h"),
        ):
            self.breaks("check_includes", name, f'#include "{header}"\n')
        for name, header in (
            ("envelope/x.cc", "envelope/base/result.h"),
            ("hsm/x.cc", "envelope/factor.h"),
            ("agent/main.cc", "hsm/cryptoki.h"),
            ("agent/usecases/x.cc", "agent/store/escrow_store.h"),
        ):
            self.keeps("check_includes", name, f'#include "{header}"\n')

    def test_libraries(self) -> None:
        for name, header in (
            ("hsm/session.cc", "p11-kit/pkcs11.h"),
            ("tpm/seal.cc", "tss2/tss2_esys.h"),
            ("agent/cli/x.cc", "sqlite3.h"),
            ("agent/audit/x.cc", "openssl/evp.h"),
            ("envelope/x.cc", "boost/asio.hpp"),
        ):
            self.breaks("check_includes", name, f"#include <{header}>\n")
        for name, header in (
            ("hsm/cryptoki.h", "p11-kit/pkcs11.h"),
            ("envelope/base/hash.cc", "openssl/evp.h"),
            ("agent/cli/x.cc", "sys/stat.h"),
            ("agent/cli/x.cc", "string_view"),
        ):
            self.keeps("check_includes", name, f"#include <{header}>\n")

    def test_forbidden(self) -> None:
        for line in ("auto x = std::format(", "std::expected<int, E> F();", "std::views::take(3)",
                     "} catch (...) {", "#include <iostream>", "// TO" + "DO later"):
            self.breaks("check_forbidden", "agent/x.cc", line + "\n")
        self.keeps("check_forbidden", "agent/x.cc", "tl::expected<int, E> F();  // not std::format\n")

    def test_secret_strings(self) -> None:
        for line in ("std::string password;", "void F(const std::string& user_pin);",
                     "std::vector<std::uint8_t> secret_ = {};", "Bytes plaintext(32);"):
            self.breaks("check_secret_strings", "agent/x.h", line + "\n")
        for line in ("std::string password_file;", "SecretBytes password;", "std::string pinned;",
                     "std::string_view secret_name;"):
            self.keeps("check_secret_strings", "agent/x.h", line + "\n")

    def test_names_lengths_and_outside(self) -> None:
        self.breaks("check_lengths", "agent/x.cc", "\n" * (lint.MAX_LINES + 1))
        self.breaks("check_documents", "README.md", "see ../sha" + "red/design\n")
        self.breaks("check_documents", "README.md", "[x](no/such/file.md)\n")
        self.assertTrue(any("says nothing" in f for f in
                            findings("check_house", "agent/string_util.h", "")))
        self.assertTrue(any("six rooms" in f for f in findings("check_house", "lib/x.h", "")))

    def test_expose_is_counted(self) -> None:
        self.breaks("check_expose", "agent/x.cc", "auto v = secret.Expose();\n")
        self.keeps("check_expose", "agent/x.cc", "// Expose() is not called here\n")


if __name__ == "__main__":
    unittest.main()
