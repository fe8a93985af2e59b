#include "agent/store/sqlite_connection.h"

#include "agent/store/sqlite_errors.h"

namespace keyescrow::agent::store {

namespace {

// FileErrno asks the file and its write-ahead log what their last system call said: SQLite 3.40's
// sqlite3_system_errno stays 0 where COMMIT is what failed.
int FileErrno(sqlite3* connection) {
  int error_number = 0;
  sqlite3_file* wal = nullptr;
  if (sqlite3_file_control(connection, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) == SQLITE_OK &&
      wal != nullptr && wal->pMethods != nullptr) {
    wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &error_number);
  }
  if (error_number == 0) {
    sqlite3_file_control(connection, "main", SQLITE_FCNTL_LAST_ERRNO, &error_number);
  }
  return error_number;
}

}  // namespace

void ConfigureSqlite() {
  // What a statement journal keeps stays in memory: no file with pages of the store under /var/tmp.
  // Nobody asks for SQLite's statistics of memory, which take a lock at each allocation. Where
  // somebody opened a connection before, both are as they were.
  static const bool done = sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, -1) == SQLITE_OK &&
                           sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0) == SQLITE_OK;
  static_cast<void>(done);
}

Error LastError(sqlite3* connection) {
  const int code = sqlite3_extended_errcode(connection);
  const std::string message = sqlite3_errmsg(connection);
  int error_number = sqlite3_system_errno(connection);
  if (error_number == 0 && (code & 0xFF) == SQLITE_IOERR) error_number = FileErrno(connection);
  return SqliteError(code, error_number, message);
}

Statement::~Statement() {
  if (statement_ == nullptr) return;
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

Statement& Statement::Bind(std::int64_t value) {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_int64(statement_, next_++, value);
  return *this;
}

Statement& Statement::Bind(std::string_view text) {
  if (code_ == SQLITE_OK) {
    const char* data = text.data() == nullptr ? "" : text.data();
    code_ = sqlite3_bind_text64(statement_, next_++, data, text.size(), SQLITE_STATIC, SQLITE_UTF8);
  }
  return *this;
}

Statement& Statement::Bind(ByteView blob) {
  if (code_ == SQLITE_OK) {
    const void* data = blob.data() == nullptr ? static_cast<const void*>("") : blob.data();
    code_ = sqlite3_bind_blob64(statement_, next_++, data, blob.size(), SQLITE_STATIC);
  }
  return *this;
}

Statement& Statement::BindNull() {
  if (code_ == SQLITE_OK) code_ = sqlite3_bind_null(statement_, next_++);
  return *this;
}

Result<bool> Statement::Step() {
  if (code_ != SQLITE_OK) return LastError(connection_);
  switch (sqlite3_step(statement_)) {
    case SQLITE_ROW: return true;
    case SQLITE_DONE: return false;
    default: return LastError(connection_);
  }
}

Status Statement::Run() {
  ASSIGN_OR_RETURN([[maybe_unused]] const bool row, Step());
  return Ok();
}

std::string_view Statement::Text(int column) const {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (text == nullptr) return {};
  return {text, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

ByteView Statement::Blob(int column) const {
  const auto* blob = static_cast<const std::uint8_t*>(sqlite3_column_blob(statement_, column));
  if (blob == nullptr) return {};
  return {blob, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

Connection::~Connection() {
  for (const auto& [sql, statement] : statements_) sqlite3_finalize(statement);
  sqlite3_close(handle_);
}

Statement Connection::Prepare(const char* sql) {
  sqlite3_stmt*& statement = statements_[sql];
  int code = SQLITE_OK;
  if (statement == nullptr) {
    code = sqlite3_prepare_v3(handle_, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, nullptr);
  }
  return Statement(handle_, statement, code);
}

Status Connection::Execute(const char* sql) {
  if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return MakeError();
  return Ok();
}

Status Transaction::Begin(const char* sql) {
  RETURN_IF_ERROR(connection_.Prepare(sql).Run());
  open_ = true;
  return Ok();
}

Status Transaction::Commit() {
  RETURN_IF_ERROR(connection_.Prepare("COMMIT").Run());
  open_ = false;
  return Ok();
}

void Transaction::Rollback() {
  // A failed COMMIT or a full disk may have rolled back already.
  if (open_ && sqlite3_get_autocommit(connection_.handle()) == 0) {
    static_cast<void>(connection_.Prepare("ROLLBACK").Run());
  }
  open_ = false;
}

}  // namespace keyescrow::agent::store
