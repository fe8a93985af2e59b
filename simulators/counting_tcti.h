// CommandLog and CountingTransport: every command to a TPM counted, every byte of the bus kept.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "envelope/base/bytes.h"
#include "tpm/transport.h"

namespace keyescrow::simulators {

// CommandLog is shared by a test and the device's thread.
class CommandLog {
 public:
  struct Entry {
    std::uint32_t command_code = 0;
    std::uint32_t response_code = 0;
    Bytes command;
    Bytes response;
  };

  void Add(Entry entry);
  void Reset();
  std::size_t count() const;
  std::vector<Entry> entries() const;
  std::vector<std::uint32_t> command_codes() const;
  // Saw tells whether `bytes` (not empty) crossed the bus, in either direction.
  bool Saw(ByteView bytes) const;

 private:
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
};

// CountingDecorator goes into tpm::DeviceOptions::decorate.
tpm::TransportDecorator CountingDecorator(std::shared_ptr<CommandLog> log);

// Fault: what a faulty bus does. `before` may refuse or replace a command, `after` may rewrite the
// response in place; `index` counts from 0. Empty functions do nothing.
struct Fault {
  std::function<Status(std::size_t index, ByteView command)> before;
  std::function<Status(std::size_t index, Bytes& response)> after;
};
tpm::TransportDecorator FaultyDecorator(std::shared_ptr<Fault> fault);

}  // namespace keyescrow::simulators
