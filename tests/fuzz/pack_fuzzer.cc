// Evidence packs: an archive that is taken is byte for byte what its members are written as; so are
// its MANIFEST and what is signed over it; its summaries' lines, its policy's facts, its agents,
// tokens and status.
#include <sys/mman.h>
#include <unistd.h>

#include "agent/audit/note.h"
#include "agent/report/pack_manifest.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
#include "agent/report/report_read.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_documents.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/pack_history.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

using namespace agent;

const Limits kLimits{.max_len = 16384, .memory_mib = 64, .cpu_s = 4};
void Prepare() {}

namespace {

std::string Archive(std::size_t num_members) {
  std::string archive;
  report::TarWriter writer("keyescrow-db1-1", 0, [&](ByteView bytes) -> Status {
    archive += AsText(bytes);
    return Ok();
  });
  for (std::size_t i = 0; i < num_members; ++i) {
    FUZZ_CHECK(writer.Add("entries/" + std::to_string(i), "x"));
  }
  FUZZ_CHECK(writer.Finish());
  return archive;
}

void CheckManifest(std::string_view text) {
  const auto lines = report::ParseManifest(text);
  if (!lines) return CheckError(lines.error());
  std::string written;
  for (const report::ManifestLine& line : *lines) {
    written += std::string(line.sha256_hex) + "  " + std::string(line.name) + "\n";
    FUZZ_CHECK(report::IsMemberName(line.name));
  }
  FUZZ_CHECK(written == text);
}

void CheckStatement(std::string_view text) {
  const auto statement = report::ParsePackStatement(text);
  if (!statement) return CheckError(statement.error());
  FUZZ_CHECK(report::FormatPackStatement(*statement) == text);
}

void CheckTexts(std::string_view text) {
  CheckManifest(text);
  CheckStatement(text);
  if (const auto note = audit::ParseNote(text)) CheckStatement(note->text);
  if (const auto facts = ParsePolicyFacts(text)) {
    FUZZ_CHECK(FormatPolicyFacts(*facts) == text);
  } else {
    CheckError(facts.error());
  }
  if (const auto agents = ParseTrustedAgents(text)) {
    FUZZ_CHECK(ParseTrustedAgents(TrustedAgentsJson(*agents)));
  } else {
    CheckError(agents.error());
  }
  if (const auto tokens = ParseTokens(text)) {
    FUZZ_CHECK(ParseTokens(TokensJson(*tokens)));
  } else {
    CheckError(tokens.error());
  }
  if (const auto claims = StatusClaims::Parse(text); !claims) CheckError(claims.error());
  if (const auto model = report::ReadReportJson(text)) {
    const std::string json = report::ReportJson(*model);
    const auto again = report::ReadReportJson(json);
    FUZZ_CHECK(again && report::ReportJson(*again) == json);
    FUZZ_CHECK(report::ReportHtml(*again) == report::ReportHtml(*model));
    FUZZ_CHECK(report::ReportCsv(*again) == report::ReportCsv(*model));
  }
  const auto lines = SplitLines(text);
  if (!lines) return CheckError(lines.error());
  for (const std::string_view line : *lines) {
    if (const auto summary = ParseSummary(line); !summary) CheckError(summary.error());
  }
}

void CheckArchive(ByteView input) {
  const int fd = memfd_create("pack", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0);
  FUZZ_CHECK(write(fd, input.data(), input.size()) == static_cast<ssize_t>(input.size()));
  const auto reader = report::TarReader::FromDescriptor(fd);
  if (!reader) return CheckError(reader.error());
  std::string written;
  report::TarWriter writer(reader->folder(), reader->time(), [&](ByteView bytes) -> Status {
    written += AsText(bytes);
    return Ok();
  });
  FUZZ_CHECK(reader->names().size() == reader->members().size());
  for (const std::string_view name : reader->names()) {
    const auto bytes = reader->Read(name);
    FUZZ_CHECK(bytes && writer.Add(name, *bytes));
    CheckTexts(*bytes);
  }
  FUZZ_CHECK(writer.Finish());
  FUZZ_CHECK(written == AsText(input));
}

}  // namespace

void VisitLargest(Feed feed) {
  feed(AsBytes(Archive(5000)));
  feed(Bytes(16 << 20, '\0'));
  feed(AsBytes(Archive(1).substr(0, 512) + std::string(16 << 20, 'x')));
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  keyescrow::fuzz::CheckTexts(keyescrow::AsText({data, size}));
  keyescrow::fuzz::CheckArchive({data, size});
  return 0;
}
