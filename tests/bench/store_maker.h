// StoreMaker fills a state folder with escrowed keys through the code that a backup runs: sealed
// and signed envelopes, their log entries, tiles and signed checkpoints. What is made is what an
// agent would have made, but for the factors' secrets, which are random and thrown away.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "agent/usecases/agent_state.h"
#include "agent/usecases/journal.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// MadeRecord: one key's envelope and the event that escrows it, ready for Journal::Append.
struct MadeRecord {
  store::EnvelopeRecord envelope;
  audit::Event event;
};

class StoreMaker {
 public:
  // Create makes the state of an agent whose keys are in files, in a folder that must not exist.
  static Result<StoreMaker> Create(const std::string& state_dir);
  // Open goes on with a folder that Create made. Errors: kNotInitialized …
  static Result<StoreMaker> Open(const std::string& state_dir);
  StoreMaker(StoreMaker&&) noexcept;
  StoreMaker& operator=(StoreMaker&&) noexcept;
  ~StoreMaker();

  // Make seals the next key (load/000/000000 …, version 1), under `password & token:ops` with an
  // RSA-3072 token: about 3.7 KB and no two alike.
  Result<MadeRecord> Make();
  // Commit appends records under one checkpoint.
  Status Commit(std::vector<MadeRecord> records);
  // Add makes and commits `count` keys, `batch` under each checkpoint.
  Status Add(std::uint64_t count, std::uint64_t batch);

  std::uint64_t num_made() const;  // since the folder was made
  Journal& journal();

 private:
  struct Impl;
  explicit StoreMaker(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::agent
