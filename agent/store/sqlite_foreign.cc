// Rows of foreign_escrow.
#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {

Status PutForeignEscrow(Connection& connection, const ForeignEscrowRecord& row) {
  Statement put = connection.Prepare(
      "INSERT OR REPLACE INTO foreign_escrow (place, item, kind, volume, opens_by, sha256, found) "
      "VALUES (?, ?, ?, ?, ?, ?, ?)");
  put.Bind(std::string_view(row.place)).Bind(std::string_view(row.item));
  put.Bind(std::string_view(row.kind)).Bind(std::string_view(row.volume));
  put.Bind(std::string_view(row.opens_by)).Bind(ByteView(row.sha256));
  return put.Bind(row.found).Run();
}

Status RemoveForeignEscrow(Connection& connection, const ForeignEscrowName& name) {
  Statement remove = connection.Prepare("DELETE FROM foreign_escrow WHERE place = ? AND item = ?");
  return remove.Bind(std::string_view(name.place)).Bind(std::string_view(name.item)).Run();
}

Result<std::vector<ForeignEscrowRecord>> ReadForeignRows(Connection& connection) {
  Statement row = connection.Prepare(
      "SELECT place, item, kind, volume, opens_by, sha256, found FROM foreign_escrow "
      "ORDER BY place, item");
  std::vector<ForeignEscrowRecord> escrows;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return escrows;
    ForeignEscrowRecord& escrow = escrows.emplace_back();
    escrow.place = std::string(row.Text(0));
    escrow.item = std::string(row.Text(1));
    escrow.kind = std::string(row.Text(2));
    escrow.volume = std::string(row.Text(3));
    escrow.opens_by = std::string(row.Text(4));
    escrow.sha256 = CopyHash(row.Blob(5));
    escrow.found = row.Integer(6);
  }
}

Result<std::vector<ForeignEscrowRecord>> SqliteStore::ForeignEscrows() {
  return ReadForeignRows(impl_->connection);
}

}  // namespace keyescrow::agent::store
