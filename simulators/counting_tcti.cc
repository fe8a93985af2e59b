#include "simulators/counting_tcti.h"

#include <algorithm>

#include "envelope/base/byte_reader.h"

namespace keyescrow::simulators {
namespace {

// CodeAt6 reads the command code or response code of a TPM header.
std::uint32_t CodeAt6(ByteView bytes) {
  ByteReader reader(bytes);
  reader.Take(6);
  return reader.TakeU32().value_or(0);
}

class CountingTransport : public tpm::Transport {
 public:
  CountingTransport(std::unique_ptr<tpm::Transport> inner, std::shared_ptr<CommandLog> log)
      : inner_(std::move(inner)), log_(std::move(log)) {}

  Result<Bytes> Exchange(ByteView command) override {
    Result<Bytes> response = inner_->Exchange(command);
    CommandLog::Entry entry;
    entry.command_code = CodeAt6(command);
    entry.command = ToBytes(command);
    if (response) {
      entry.response_code = CodeAt6(*response);
      entry.response = *response;
    }
    log_->Add(std::move(entry));
    return response;
  }

 private:
  std::unique_ptr<tpm::Transport> inner_;
  std::shared_ptr<CommandLog> log_;
};

class FaultyTransport : public tpm::Transport {
 public:
  FaultyTransport(std::unique_ptr<tpm::Transport> inner, std::shared_ptr<Fault> fault)
      : inner_(std::move(inner)), fault_(std::move(fault)) {}

  Result<Bytes> Exchange(ByteView command) override {
    const std::size_t index = index_++;
    if (fault_->before) RETURN_IF_ERROR(fault_->before(index, command));
    ASSIGN_OR_RETURN(Bytes response, inner_->Exchange(command));
    if (fault_->after) RETURN_IF_ERROR(fault_->after(index, response));
    return response;
  }

 private:
  std::unique_ptr<tpm::Transport> inner_;
  std::shared_ptr<Fault> fault_;
  std::size_t index_ = 0;
};

bool Contains(const Bytes& haystack, ByteView needle) {
  return std::search(haystack.begin(), haystack.end(), needle.begin(), needle.end()) !=
         haystack.end();
}

}  // namespace

void CommandLog::Add(Entry entry) {
  const std::lock_guard lock(mutex_);
  entries_.push_back(std::move(entry));
}

void CommandLog::Reset() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
}

std::size_t CommandLog::count() const {
  const std::lock_guard lock(mutex_);
  return entries_.size();
}

std::vector<CommandLog::Entry> CommandLog::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

std::vector<std::uint32_t> CommandLog::command_codes() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint32_t> codes;
  for (const Entry& entry : entries_) codes.push_back(entry.command_code);
  return codes;
}

bool CommandLog::Saw(ByteView bytes) const {
  const std::lock_guard lock(mutex_);
  return !bytes.empty() &&
         std::any_of(entries_.begin(), entries_.end(), [bytes](const Entry& entry) {
           return Contains(entry.command, bytes) || Contains(entry.response, bytes);
         });
}

tpm::TransportDecorator CountingDecorator(std::shared_ptr<CommandLog> log) {
  return [log = std::move(log)](std::unique_ptr<tpm::Transport> inner) {
    return std::make_unique<CountingTransport>(std::move(inner), log);
  };
}

tpm::TransportDecorator FaultyDecorator(std::shared_ptr<Fault> fault) {
  return [fault = std::move(fault)](std::unique_ptr<tpm::Transport> inner) {
    return std::make_unique<FaultyTransport>(std::move(inner), fault);
  };
}

}  // namespace keyescrow::simulators
