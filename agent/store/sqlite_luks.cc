// Rows of luks_binding.
#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {

Status PutLuksBinding(Connection& connection, const LuksBindingRecord& row) {
  Statement put = connection.Prepare(
      "INSERT OR REPLACE INTO luks_binding (key_name, key_version, device, uuid, volume, keyslot, "
      "keyslot_hash, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  put.Bind(std::string_view(row.key_name)).Bind(row.key_version);
  put.Bind(std::string_view(row.device)).Bind(std::string_view(row.uuid));
  put.Bind(ByteView(row.volume));
  if (row.keyslot) {
    put.Bind(row.keyslot->number).Bind(ByteView(row.keyslot->hash));
  } else {
    put.BindNull().BindNull();
  }
  return put.Bind(row.time).Run();
}

Result<std::vector<LuksBindingRecord>> SqliteStore::LuksBindings(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      key_name.empty()
          ? "SELECT key_name, key_version, device, uuid, volume, keyslot, keyslot_hash, time "
            "FROM luks_binding ORDER BY key_name, key_version, device"
          : "SELECT key_name, key_version, device, uuid, volume, keyslot, keyslot_hash, time "
            "FROM luks_binding WHERE key_name = ? ORDER BY key_version, device");
  if (!key_name.empty()) row.Bind(key_name);
  std::vector<LuksBindingRecord> bindings;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return bindings;
    LuksBindingRecord& binding = bindings.emplace_back();
    binding.key_name = std::string(row.Text(0));
    binding.key_version = static_cast<std::uint32_t>(row.Integer(1));
    binding.device = std::string(row.Text(2));
    binding.uuid = std::string(row.Text(3));
    binding.volume = CopyHash(row.Blob(4));
    if (!row.IsNull(5)) {
      binding.keyslot = LuksBindingRecord::Keyslot{static_cast<std::uint32_t>(row.Integer(5)),
                                                   CopyHash(row.Blob(6))};
    }
    binding.time = row.Integer(7);
  }
}

}  // namespace keyescrow::agent::store
