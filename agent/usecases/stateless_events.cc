#include "agent/usecases/stateless_events.h"

#include "agent/key_locations/crash_safe_file.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {

Status StatelessEvents::Record(audit::Event event) {
  RETURN_IF_ERROR(CompleteEvent(event, *environment_.clock, *environment_.random));
  event.source = audit::kStatelessSource;
  event.source_seq = num_recorded_;
  event.host = ThisHost(*environment_.config);
  if (file_.empty()) {
    file_ = "./keyescrow-" + command_ + "-" + EncodeBase64Url(event.id) + ".json";
  }
  ASSIGN_OR_RETURN(const std::string line, audit::SerializeEvent(event));
  Status written;
  if (num_recorded_ == 0) {
    DurableWriteOptions options;
    options.mode = 0600;
    options.exclusive = true;
    written = WriteFileDurably(file_, AsBytes(line + "\n"), options);
  } else {
    written = AppendLineDurably(file_, line);
  }
  if (!written) {
    const std::string what =
        num_recorded_ == 0
            ? "the event of this " + command_ + " cannot be written, so nothing is released: "
            : "the outcome of this " + command_ + " is missing in its event: ";
    return Error(ErrorCode::kEventLogUnavailable, Action::kCheckSystemState,
                 what + written.error().message(),
                 "name a new file on a disk that can be written with --event-log FILE");
  }
  ++num_recorded_;
  return Ok();
}

}  // namespace keyescrow::agent
